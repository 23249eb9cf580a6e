import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { lazy, Suspense } from "react";
import { toRoute, useAddress, go, queuePath, studyPath } from "./route";

const StudyPage = lazy(() => import("../viewer/StudyPage"));
const client = new QueryClient({ defaultOptions: { queries: { retry: 1, staleTime: 10_000 } } });
const nowhere = {
  next: () => null,
  previous: () => null,
  open: (imageId: string) => go(studyPath(imageId)),
  backToQueue: () => go(queuePath()),
};

export function App() {
  const route = toRoute(useAddress().path);
  return (
    <QueryClientProvider client={client}>
      <div className="page">
        {route.page === "study" ? (
          <Suspense fallback={<p>Loading the viewer.</p>}>
            <StudyPage key={route.imageId} imageId={route.imageId} queue={nowhere} />
          </Suspense>
        ) : (
          <p>Queue</p>
        )}
      </div>
    </QueryClientProvider>
  );
}

/** The whole page: who is signed in, and which of the pages is shown. */
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { ApiError } from "../api/client";
import { Gate } from "./Gate";
import { Pages } from "./Pages";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      networkMode: "always", // an endpoint on this machine answers without a network
      staleTime: 10_000,
      retry: (failures, error) => failures < 1 && !(error instanceof ApiError && error.status < 500),
    },
  },
});

export function App() {
  return (
    <QueryClientProvider client={client}>
      <Gate>{(session) => <Pages session={session} />}</Gate>
    </QueryClientProvider>
  );
}

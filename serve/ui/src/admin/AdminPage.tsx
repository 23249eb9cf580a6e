/** For operators: health, drift, agreement and jobs; for admins also the audit and the keys. */
import type { Session } from "../api/types";
import { Agreement } from "./Agreement";
import { ApiKeys } from "./access/ApiKeys";
import { Audit } from "./access/Audit";
import { Champions } from "./model/Champions";
import { Drift } from "./model/Drift";
import { Health } from "./Health";
import { Jobs } from "./Jobs";
import { ModelCard } from "./model/ModelCard";
import "./admin.css";

export default function AdminPage({ session }: { session: Session }) {
  return (
    <main className="admin">
      <h1 className="visually-hidden">Operation</h1>
      <Health />
      <ModelCard />
      <Champions />
      <Agreement />
      <Drift />
      <Jobs />
      {session.role === "admin" && (
        <>
          <Audit />
          <ApiKeys />
        </>
      )}
    </main>
  );
}

/** Batch jobs and how far they are. */
import { useQuery } from "@tanstack/react-query";
import { request, withQuery } from "../api/client";
import { refreshMark } from "../api/queries";
import { toTime } from "../queue/time";
import { Section } from "./Section";
import { Table } from "./Table";
import type { Job, JobList } from "./types";

export function Jobs() {
  const query = useQuery({
    queryKey: ["jobs"],
    queryFn: async (context) => {
      const mark = refreshMark(context);
      const { jobs } = await request<JobList>("GET", withQuery("/jobs", mark), undefined, context.signal);
      return Promise.all(jobs.map((job) => refresh(job, mark, context.signal)));
    },
    refetchInterval: 10_000,
  });
  return (
    <Section title="Batch jobs" query={query}>
      {(jobs) => (
        <Table
          label="Batch jobs"
          columns={[
            { name: "Started", cell: (job) => toTime(job.created_at) },
            { name: "State", cell: (job) => job.state + (job.error ? `: ${job.error}` : "") },
            { name: "Images", cell: (job) => <Done job={job} />, number: true },
            { name: "Job", cell: (job) => <code>{job.job_id.slice(0, 8)}</code> },
          ]}
          rows={jobs}
          keyOf={(job) => job.job_id}
          empty="No jobs yet."
        />
      )}
    </Section>
  );
}

/** The list has the states as they were last asked for; only jobs under way can have moved. */
async function refresh(job: Job, mark: ReturnType<typeof refreshMark>, signal: AbortSignal): Promise<Job> {
  if (job.state !== "queued" && job.state !== "running") return job;
  return request<Job>("GET", withQuery(`/jobs/${job.job_id}`, mark), undefined, signal).catch(() => job);
}

function Done({ job }: { job: Job }) {
  const count = job.done.toLocaleString("en");
  return job.total === null ? count : `${count} of ${job.total.toLocaleString("en")}`;
}

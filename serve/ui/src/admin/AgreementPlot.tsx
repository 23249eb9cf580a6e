/** Agreement over time, a point a day; the table beside it has the numbers. */
import type { Agreement } from "./types";

const WIDTH = 640;
const HEIGHT = 120;
const LEFT = 44;
const DAY_MS = 86_400_000;

export function AgreementPlot({ days }: { days: Agreement["days"] }) {
  const known = days.flatMap(({ day, verdicts }) =>
    verdicts.agreement === null ? [] : [{ at: Date.parse(day), share: verdicts.agreement }],
  );
  const [first, last] = [known[0], known.at(-1)];
  if (!first || !last || known.length < 2) return null;
  const span = Math.max(last.at - first.at, DAY_MS);
  const points = known.map(({ at, share }) => [
    LEFT + ((at - first.at) / span) * (WIDTH - LEFT - 8),
    8 + (1 - share) * (HEIGHT - 16),
  ]);
  return (
    <svg
      className="plot"
      viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
      role="img"
      aria-label={`Agreement by day, from ${format(first.share)} to ${format(last.share)}`}
    >
      {[0, 0.5, 1].map((share) => (
        <g key={share}>
          <line x1={LEFT} x2={WIDTH} y1={8 + (1 - share) * (HEIGHT - 16)} y2={8 + (1 - share) * (HEIGHT - 16)} />
          <text x={LEFT - 6} y={12 + (1 - share) * (HEIGHT - 16)} textAnchor="end">
            {format(share)}
          </text>
        </g>
      ))}
      <polyline points={points.map((point) => point.join(",")).join(" ")} />
      {points.map(([x, y]) => (
        <circle key={x} cx={x} cy={y} r="2.5" />
      ))}
    </svg>
  );
}

function format(share: number): string {
  return `${Math.round(100 * share)} %`;
}

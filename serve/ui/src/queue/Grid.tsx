/** The rows of the queue as a grid: only those in sight are in the page. */
import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useLayoutEffect, useRef } from "react";
import type { Study } from "../api/types";
import { useMatches } from "../app/media";
import { COLUMNS, type RowContext } from "./columns";

interface Props {
  rows: Study[];
  columns: typeof COLUMNS;
  context: RowContext;
  /** The study in hand. */
  inHand: string | null;
  /** All rows are loaded. */
  isWhole: boolean;
  onReachEnd: () => void;
  onOpen: (imageId: string) => void;
}

const ROW_PX = 34;
const CARD_PX = 74;
const NARROW = "(max-width: 899px)";

export function Grid({ rows, columns, context, inHand, isWhole, onReachEnd, onOpen }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const isNarrow = useMatches(NARROW);
  const scale = useMatches("(min-width: 2560px)") ? 20 / 14 : 1; // as the font in theme.css
  const height = Math.round((isNarrow ? CARD_PX : ROW_PX) * scale);
  const place = rows.findIndex((row) => row.image_id === inHand);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => height,
    getItemKey: (index) => rows[index]?.image_id ?? index,
    overscan: 12,
    scrollPaddingStart: isNarrow ? 4 : height,
  });
  const items = virtual.getVirtualItems();
  const last = items.at(-1)?.index ?? 0;

  useEffect(() => scroller.current?.focus({ preventScroll: true }), []);
  useEffect(() => virtual.measure(), [virtual, height]);
  useKeepPlace(scroller, rows, inHand, place, height);
  useEffect(() => {
    if (inHand && place >= 0) virtual.scrollToIndex(place, { align: "auto" });
    // Only a step of the reader moves the list, never new rows.
    // eslint-disable-next-line
  }, [inHand]);
  useEffect(() => {
    if (!isWhole && last >= rows.length - 30) onReachEnd();
  }, [isWhole, last, rows.length, onReachEnd]);

  return (
    <div
      ref={scroller}
      className={`grid ${columns.length < COLUMNS.length ? "flags" : ""}`}
      role="grid"
      tabIndex={0}
      aria-label="Studies"
      aria-rowcount={isWhole ? rows.length + 1 : -1}
      aria-activedescendant={items.some((item) => item.index === place) ? `row-${inHand}` : undefined}
    >
      <div role="rowgroup" className="grid-head">
        <div role="row" className="row" aria-rowindex={1}>
          {columns.map((column) => (
            <div key={column.name} role="columnheader" className={`cell ${column.name}`}>
              {column.heading}
            </div>
          ))}
        </div>
      </div>
      <div role="rowgroup" className="grid-body" style={{ height: virtual.getTotalSize() }}>
        {items.map((item) => {
          const row = rows[item.index];
          if (!row) return null;
          const isRead = Boolean(row.reviewed_at) || context.left.has(row.image_id);
          return (
            <div
              key={item.key}
              id={`row-${row.image_id}`}
              role="row"
              aria-rowindex={item.index + 2}
              aria-selected={row.image_id === inHand}
              className={`row study ${isRead ? "done" : ""}`}
              style={{ height, transform: `translateY(${item.start}px)` }}
              onClick={() => onOpen(row.image_id)}
            >
              {columns.map((column) => (
                <div key={column.name} role="gridcell" className={`cell ${column.name}`}>
                  {column.cell(row, context)}
                </div>
              ))}
            </div>
          );
        })}
      </div>
    </div>
  );
}

/** When the order changes, scrolls by as much as the row in hand moved: it stays where it was on the screen. */
function useKeepPlace(
  scroller: { current: HTMLDivElement | null },
  rows: Study[],
  inHand: string | null,
  place: number,
  height: number,
) {
  const before = useRef({ rows, inHand, place });
  useLayoutEffect(() => {
    const old = before.current;
    before.current = { rows, inHand, place };
    if (old.rows === rows || old.inHand !== inHand || old.place < 0 || place < 0) return;
    scroller.current?.scrollBy(0, (place - old.place) * height);
  }, [scroller, rows, inHand, place, height]);
}

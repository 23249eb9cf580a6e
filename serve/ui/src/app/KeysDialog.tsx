/** All keys that do something now; each may be changed. */
import { useEffect, useRef, useState } from "react";
import { keysOf, nameOf, setKeys, setKeysOff, useActiveKeys, type Binding } from "./keys";

export function KeysDialog({ onClose }: { onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { bindings, settings } = useActiveKeys();
  const groups = [...new Set(bindings.map((binding) => binding.group))];
  useEffect(() => dialog.current?.showModal(), []);
  return (
    <dialog ref={dialog} className="keys" aria-labelledby="keys-title" onClose={onClose}>
      <div className="keys-head">
        <h2 id="keys-title">Keys</h2>
        <button type="button" onClick={() => dialog.current?.close()}>
          Close
        </button>
      </div>
      <div className="keys-groups">
        {groups.map((group) => (
          <section key={group}>
            <h3>{group}</h3>
            <ul>
              {bindings
                .filter((binding) => binding.group === group)
                .map((binding) => (
                  <Keys key={binding.id} binding={binding} isChanged={binding.id in settings.keys} />
                ))}
            </ul>
          </section>
        ))}
      </div>
      <label className="check">
        <input type="checkbox" checked={settings.off} onChange={(event) => setKeysOff(event.target.checked)} />
        Keys of a single character are off
      </label>
    </dialog>
  );
}

/** The keys of a binding; its button waits for another key. */
function Keys({ binding, isChanged }: { binding: Binding; isChanged: boolean }) {
  const [isWaiting, setWaiting] = useState(false);
  return (
    <li>
      <span>{binding.label}</span>
      <span className="keys-of">
        {isWaiting ? <em>press a key</em> : keysOf(binding).map((key) => <kbd key={key}>{toSign(key)}</kbd>)}
        <button
          type="button"
          aria-label={`Change the key: ${binding.label}`}
          onClick={() => setWaiting(!isWaiting)}
          onBlur={() => setWaiting(false)}
          onKeyDown={(event) => {
            if (!isWaiting) return;
            const name = nameOf(event.nativeEvent);
            if (!name || name === "Tab" || name === "Shift+Tab") return;
            event.preventDefault();
            event.stopPropagation();
            if (name !== "Escape") setKeys(binding.id, [name]);
            setWaiting(false);
          }}
        >
          Change
        </button>
        {isChanged && (
          <button type="button" aria-label={`The usual key: ${binding.label}`} onClick={() => setKeys(binding.id, null)}>
            Usual
          </button>
        )}
      </span>
    </li>
  );
}

const SIGNS: Record<string, string> = { ArrowDown: "↓", ArrowUp: "↑", ArrowLeft: "←", ArrowRight: "→" };

function toSign(key: string): string {
  return key.replace(/Arrow\w+/, (arrow) => SIGNS[arrow] ?? arrow);
}

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  base: "/ui/",
  plugins: [react(), compress()],
  // The DICOM loader reaches it by way of an XML export that nothing here calls; it breaks at import in a browser.
  resolve: { alias: { xmlbuilder2: here("./stub/xmlbuilder2.ts") } },
  worker: { format: "es" },
  build: {
    target: "es2022",
    manifest: "manifest.json",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // the content security policy allows no data: URI
    chunkSizeWarningLimit: 5000, // the viewer, which is loaded with the first film
    rolldownOptions: { input: [here("./index.html"), here("./docs.html")] },
  },
});

/** Puts a compressed copy beside each asset that gets smaller by it. */
function compress(): Plugin {
  return {
    name: "compress",
    apply: "build",
    closeBundle() {
      for (const name of readdirSync(here("./dist/assets"))) {
        const content = readFileSync(here(`./dist/assets/${name}`));
        const compressed = gzipSync(content, { level: 9 });
        if (compressed.length < 0.9 * content.length) writeFileSync(here(`./dist/assets/${name}.gz`), compressed);
      }
    },
  };
}

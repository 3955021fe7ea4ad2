// Keeps the page, so that it opens without a network; answers are never kept.

const KEPT = "verger-2";
const BY_PHONE = "verger-on-phone"; // phone.js keeps there what it computes with
const SHELL = [
  "/", "/?lang=en", "/?lang=fr", "/app.css", "/app.js", "/icon.svg", "/app.webmanifest",
  "/phone.js", "/onnxruntime/ort.mjs",
];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(KEPT).then((kept) => kept.addAll(SHELL)));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => {
  const old = (names) =>
    names.filter((name) => ![KEPT, BY_PHONE].includes(name)).map((name) => caches.delete(name));
  event.waitUntil(caches.keys().then((names) => Promise.all(old(names))));
});

self.addEventListener("fetch", (event) => {
  const address = new URL(event.request.url);
  if (event.request.method !== "GET" || !SHELL.includes(address.pathname)) return;
  // The network first, so that nobody sees an old page.
  event.respondWith(
    fetch(event.request)
      .then((answer) => {
        const copy = answer.clone();
        if (answer.ok) caches.open(KEPT).then((kept) => kept.put(event.request, copy));
        return answer;
      })
      .catch(() => caches.match(event.request, { ignoreVary: true })),
  );
});

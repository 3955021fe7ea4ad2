// Computes answers in a thread of its own, so that no photograph leaves the phone.

import * as ort from "/onnxruntime/ort.mjs";

const KEPT = "verger-on-phone";
let session = null;

// The address of a file has its digest, so that one that was kept is the one that is wanted.
async function load(address, kept) {
  const found = await kept?.match(address);
  if (found) return found.arrayBuffer();
  const fetched = await fetch(address);
  if (!fetched.ok) throw new Error(`${address}: ${fetched.status}`);
  await kept?.put(address, fetched.clone());
  return fetched.arrayBuffer();
}

async function open({ model, runtime }) {
  const kept = await self.caches?.open(KEPT); // there is none without TLS
  ort.env.wasm.numThreads = 1; // more would want headers that other pages may not like
  ort.env.wasm.wasmBinary = await load(runtime, kept);
  const opened = await ort.InferenceSession.create(new Uint8Array(await load(model, kept)));
  for (const { url } of (await kept?.keys()) ?? []) {
    if (![model, runtime].includes(new URL(url).pathname)) await kept.delete(url);
  }
  return opened;
}

function withoutAlpha({ data, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    rgb[to++] = data[from];
    rgb[to++] = data[from + 1];
    rgb[to++] = data[from + 2];
  }
  return new ort.Tensor("uint8", rgb, [height, width, 3]);
}

async function answer({ image, files }) {
  session ??= open(files);
  const opened = await session.catch((error) => {
    session = null; // to be tried again
    throw error;
  });
  if (!image) return {};
  const { probabilities, sure } = await opened.run({ picture: withoutAlpha(image) });
  return { probabilities: [...probabilities.data], sure: Boolean(sure.data[0]) };
}

self.addEventListener("message", ({ data, ports: [port] }) => {
  answer(data).then(
    (found) => port.postMessage(found),
    (error) => {
      console.error(error);
      port.postMessage({ failed: true });
    },
  );
});

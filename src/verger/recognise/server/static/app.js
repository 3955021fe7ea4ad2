// Sends a photograph, made small and without its metadata, and shows the answer. All words that come
// from the server are put in as text, never as markup.

const words = JSON.parse(document.getElementById("words").textContent);
const language = document.documentElement.lang;
const percent = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const byId = (id) => document.getElementById(id);
const LONGER_SIDE = 1280;
const LEAST_SHOWN = 0.01;
let sent = null;

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Drawn anew, a picture has no place, no date and no serial number, and is upright.
async function redraw(file) {
  try {
    const picture = await createImageBitmap(file);
    const scale = Math.min(1, LONGER_SIDE / Math.max(picture.width, picture.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(picture.width * scale));
    canvas.height = Math.max(1, Math.round(picture.height * scale));
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const redrawn = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    return redrawn ?? file;
  } catch {
    return file; // a format that this browser does not know; the server may
  }
}

async function post(address, body) {
  let response;
  try {
    response = await fetch(address, {
      method: "POST", body, headers: { "Content-Type": body.type || "application/octet-stream" },
    });
  } catch {
    throw new Error(words.offline);
  }
  if (!response.ok) throw new Error(words[`error_${response.status}`] ?? words.error_other);
  return response.json();
}

function showGuess(guess) {
  const item = element("li");
  const row = element("div", "", { class: "row" });
  row.append(element("span", guess.label), element("span", percent.format(guess.confidence)));
  const meter = element("meter", "", {
    min: 0, max: 1, value: guess.confidence, "aria-label": `${guess.label}, ${words.likely}`,
  });
  item.append(row, meter);
  if (guess.name) {
    const { botanical, family } = guess.name;
    const named = element("small", `${guess.name[language]}, `);
    named.append(element("i", botanical, { lang: "la" }), `, ${words.family} `, element("span", family, { lang: "la" }));
    item.append(named);
  }
  return item;
}

function showSimilar(similar) {
  const item = element("li");
  const picture = element("img", "", { src: similar.picture, alt: "", loading: "lazy" });
  picture.addEventListener("error", () => picture.remove());
  item.append(picture, element("span", similar.label));
  return item;
}

async function look(input) {
  const [file] = input.files;
  if (!file) return;
  input.value = "";
  byId("answer").hidden = true;
  byId("status").textContent = words.looking;
  sent = await redraw(file);
  const photograph = byId("photograph");
  URL.revokeObjectURL(photograph.src);
  photograph.src = URL.createObjectURL(sent);
  photograph.hidden = false;
  try {
    const answer = await post("/api/classify", sent);
    byId("verdict").textContent = answer.sure ? words.sure : words.unsure;
    const likely = answer.guesses.filter(({ confidence }, n) => !n || confidence >= LEAST_SHOWN);
    byId("guesses").replaceChildren(...likely.map(showGuess));
    byId("similar").replaceChildren(...answer.similar.map(showSimilar));
    byId("answer").hidden = false;
    byId("status").textContent = "";
    if (byId("correction")) byId("correction").open = false;
    byId("verdict").scrollIntoView({ block: "nearest" });
  } catch (error) {
    byId("status").textContent = error.message;
  }
}

async function correct(event) {
  event.preventDefault();
  const asked = new URLSearchParams({ label: byId("label").value, consent: "yes" });
  try {
    await post(`/api/corrections?${asked}`, sent);
    byId("status").textContent = words.thanks;
    byId("correct").reset();
    byId("correction").open = false;
  } catch (error) {
    byId("status").textContent = error.message;
  }
  byId("status").scrollIntoView({ block: "center" });
}

for (const id of ["camera", "file"]) {
  byId(id).addEventListener("change", (event) => look(event.target));
}
byId("correct")?.addEventListener("submit", correct);
if ("serviceWorker" in navigator) navigator.serviceWorker.register("/worker.js");

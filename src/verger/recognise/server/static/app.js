// Sends a photograph, made small and without its metadata, or computes on the phone, and shows the
// answer. All words that come from the server are put in as text, never as markup.

const words = JSON.parse(document.getElementById("words").textContent);
const language = document.documentElement.lang;
const percent = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 });
const byId = (id) => document.getElementById(id);
const LONGER_SIDE = 1280;
const LEAST_SHOWN = 0.01;
const ANSWERS = 5;
const PLACE = "computed-by";
const onPhone = byId("on-phone");
let sent = null;
let looks = 0;
let computer = null;
const waiting = new Set();

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Drawn anew, a picture has no place, no date and no serial number, and is upright.
async function draw(source) {
  const picture = await createImageBitmap(source);
  const scale = Math.min(1, LONGER_SIDE / Math.max(picture.width, picture.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(picture.width * scale));
  canvas.height = Math.max(1, Math.round(picture.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return canvas;
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

// What the phone's own thread answers; without an image it only gets ready.
function compute(image) {
  if (!computer) {
    computer = new Worker("/phone.js", { type: "module" });
    computer.addEventListener("error", () => {
      for (const fail of waiting) fail();
      waiting.clear();
      computer = null; // to be tried again
    });
  }
  const { port1, port2 } = new MessageChannel();
  return new Promise((done, reject) => {
    const fail = () => reject(new Error(words.not_on_phone));
    waiting.add(fail);
    port1.onmessage = ({ data }) => {
      waiting.delete(fail);
      port1.close();
      if (data.failed) fail();
      else done(data);
    };
    computer.postMessage({ image, files: { ...onPhone.dataset } }, [port2]);
  });
}

async function answerOnPhone(canvas) {
  const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const { probabilities, sure } = await compute(image);
  const { labels, names } = JSON.parse(byId("classes").textContent);
  const guesses = labels.map((label, n) => ({ label, name: names[n], confidence: probabilities[n] }));
  guesses.sort((one, other) => other.confidence - one.confidence);
  return { sure, guesses: guesses.slice(0, ANSWERS), similar: [] };
}

function showAnswer(answer) {
  byId("verdict").textContent = answer.sure ? words.sure : words.unsure;
  const likely = answer.guesses.filter(({ confidence }, n) => !n || confidence >= LEAST_SHOWN);
  byId("guesses").replaceChildren(...likely.map(showGuess));
  byId("similar").replaceChildren(...answer.similar.map(showSimilar));
  byId("likeness").hidden = !answer.similar.length;
  byId("answer").hidden = false;
  byId("status").textContent = "";
  if (byId("correction")) byId("correction").open = false;
  byId("verdict").scrollIntoView({ block: "nearest" });
}

// A file, or what the camera shows. An answer that comes after the next photograph is not shown.
async function look(source) {
  const mine = ++looks;
  byId("answer").hidden = true;
  byId("status").textContent = words.looking;
  try {
    const canvas = await draw(source).catch(() => null); // of a format that this browser does not know
    const redrawn = canvas && (await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92)));
    if (mine !== looks) return;
    sent = redrawn ?? source;
    const photograph = byId("photograph");
    URL.revokeObjectURL(photograph.src);
    photograph.src = URL.createObjectURL(sent);
    photograph.hidden = false;
    if (onPhone?.checked && !canvas) throw new Error(words.error_415);
    const answer = await (onPhone?.checked ? answerOnPhone(canvas) : post("/api/classify", sent));
    if (mine === looks) showAnswer(answer);
  } catch (error) {
    if (mine === looks) byId("status").textContent = error.message;
  }
}

async function switchPlace() {
  const preparing = words.preparing.replace("{MB}", onPhone.dataset.megabytes);
  localStorage.setItem(PLACE, onPhone.checked ? "phone" : "server");
  byId("privacy").textContent = onPhone.checked ? words.privacy_on_phone : words.privacy;
  byId("status").textContent = onPhone.checked ? preparing : "";
  if (!onPhone.checked) return;
  try {
    await compute();
    if (byId("status").textContent === preparing) byId("status").textContent = words.prepared;
  } catch (error) {
    byId("status").textContent = error.message;
  }
}

async function openCamera() {
  try {
    byId("video").srcObject = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: LONGER_SIDE } },
    });
    await byId("video").play();
    showCamera(true);
    byId("shoot").focus();
  } catch {
    byId("status").textContent = words.no_camera;
    offerCamera(false);
  }
}

function closeCamera() {
  for (const track of byId("video").srcObject.getTracks()) track.stop();
  byId("video").srcObject = null;
  showCamera(false);
  byId("open").focus();
}

function showCamera(live) {
  byId("live").hidden = !live;
  byId("choices").hidden = live;
}

// The camera in the page, or the one that the browser opens for a file.
function offerCamera(live) {
  byId("open").hidden = !live;
  byId("take").hidden = live;
}

async function shoot() {
  const frame = await createImageBitmap(byId("video"));
  closeCamera();
  await look(frame);
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
  byId(id).addEventListener("change", ({ target }) => {
    const [file] = target.files;
    target.value = "";
    if (file) look(file);
  });
}
byId("open").addEventListener("click", openCamera);
byId("shoot").addEventListener("click", shoot);
byId("close").addEventListener("click", closeCamera);
offerCamera(Boolean(navigator.mediaDevices)); // which pages without TLS do not have
byId("correct")?.addEventListener("submit", correct);
if (onPhone) {
  onPhone.addEventListener("change", switchPlace);
  onPhone.checked = localStorage.getItem(PLACE) === "phone";
  if (onPhone.checked) switchPlace();
}
if ("serviceWorker" in navigator) navigator.serviceWorker.register("/worker.js");

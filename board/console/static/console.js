"use strict";
// Everything works without this but the number pad, the live pictures and the status bar's refresh.
const $ = (id) => document.getElementById(id);

// -- no double taps: a form that goes once is grey from then on
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) { event.preventDefault(); return; }
  form.dataset.sent = "1";
  setTimeout(() => form.classList.add("busy"), 0);
});
window.addEventListener("pageshow", () => {
  for (const form of document.forms) { delete form.dataset.sent; form.classList.remove("busy"); }
});

// -- number pad
let field = document.querySelector(".typed") || $("pin");
const choose = (one) => {
  document.querySelectorAll(".typed").forEach((other) => other.classList.toggle("active", other === one));
  field = one;
};
document.querySelectorAll(".typed").forEach((one) => one.addEventListener("focus", () => choose(one)));
if (field && field.classList.contains("typed")) choose(field);
document.querySelectorAll(".key").forEach((key) => key.addEventListener("click", () => {
  const what = key.dataset.key;
  if (what === "back") field.value = field.value.slice(0, -1);
  else if (what === "clear") field.value = "";
  else if (field.value.length < (field.maxLength > 0 ? field.maxLength : 8)) field.value += what;
}));

// -- counting breaths or beats: the mean of the intervals of the last taps
const tapper = $("tapper");
if (tapper) {
  const taps = [];
  tapper.addEventListener("click", (event) => {
    taps.push(event.timeStamp);
    if (taps.length > 1) {
      const minutes = (taps[taps.length - 1] - taps[0]) / 60000;
      const rate = Math.round((taps.length - 1) / minutes);
      $("tapped").textContent = ` ${taps.length} · ${rate}/min`;
      if (taps.length >= 6) $(tapper.dataset.into).value = rate;
    }
  });
}

// -- the model's view over the photograph
document.querySelectorAll(".over").forEach((one) => one.addEventListener("click", () => one.classList.toggle("on")));

// -- what this page says aloud, once, and again on a touch
if (document.body.dataset.say) {
  const voice = new Audio(document.body.dataset.say);
  voice.addEventListener("playing", () => { document.body.dataset.said = Number(document.body.dataset.said || 0) + 1; });
  const say = () => { voice.currentTime = 0; voice.play().catch(() => null); };  // refused before the first touch: the button stays
  $("say").addEventListener("click", say);
  say();
}

// -- live channels
const channel = (path) => {
  const socket = new WebSocket(`ws://${location.host}${path}`);
  socket.binaryType = "arraybuffer";
  return socket;
};
const trouble = (text) => { const out = $("trouble"); out.hidden = false; out.textContent = `✗ ${text}`; };
const light = (text, kind) => { const out = $("light"); out.textContent = text; out.className = `light ${kind}`; };

const ecg = $("ecg");
if (ecg) {
  const canvas = $("trace"), context = canvas.getContext("2d"), scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = Math.max(150, Math.min(innerHeight - 260, 420));
  canvas.width = width * scale; canvas.height = height * scale; canvas.style.height = `${height}px`;
  context.scale(scale, scale);
  const mm = 96 / 25.4 * 1.2;
  // the grid is drawn once, and copied to where the trace is wiped
  const paper = document.createElement("canvas");
  paper.width = canvas.width; paper.height = canvas.height;
  const ink = paper.getContext("2d");
  ink.scale(scale, scale); ink.fillStyle = "#fff"; ink.fillRect(0, 0, width, height);
  for (const [step, colour] of [[mm, "#f9dadd"], [5 * mm, "#ee9ca5"]]) {
    ink.strokeStyle = colour; ink.lineWidth = 1; ink.beginPath();
    for (let x = 0; x < width; x += step) { ink.moveTo(Math.round(x) + .5, 0); ink.lineTo(Math.round(x) + .5, height); }
    for (let y = height / 2 % step; y < height; y += step) { ink.moveTo(0, Math.round(y) + .5); ink.lineTo(width, Math.round(y) + .5); }
    ink.stroke();
  }
  const grid = (x, w) => {
    const from = Math.floor(x), size = Math.min(Math.ceil(w), width - from);
    if (size > 0) context.drawImage(paper, from * scale, 0, size * scale, paper.height, from, 0, size, height);
  };
  grid(0, width);
  let at = 0, last = height / 2, rate = 250, waiting = [], base = 0, drawn = 0, began = 0;
  const draw = (now) => {
    if (waiting.length) {
      if (!began) began = now - 120;  // a little behind, so that uneven arrivals are drawn evenly
      const due = Math.min(waiting.length, Math.floor((now - began) / 1000 * rate) - drawn);
      if (due > 0) {
        const step = 25 * mm / rate, clear = Math.ceil(step * due) + 14;
        grid(at + 1, clear);
        context.strokeStyle = "#000"; context.lineWidth = 1.8; context.beginPath(); context.moveTo(at, last);
        for (const value of waiting.splice(0, due)) {
          base += (value - base) / (rate * 1.5);
          at += step; last = height / 2 - (value - base) / 1000 * 10 * mm;
          if (at >= width) { context.stroke(); at = 0; grid(0, clear); context.beginPath(); context.moveTo(0, last); } else context.lineTo(at, last);
        }
        context.stroke(); drawn += due;
      }
    }
    requestAnimationFrame(draw);
  };
  $("start").addEventListener("click", () => {
    $("start").disabled = true; $("start").classList.add("busy"); $("trouble").hidden = true;
    const socket = channel(ecg.dataset.url);
    socket.onmessage = (event) => {
      if (typeof event.data !== "string") { for (const value of new Int16Array(event.data)) waiting.push(value); return; }
      const said = JSON.parse(event.data);
      if (said.fs) { rate = said.fs; requestAnimationFrame(draw); }
      if ("left" in said) {
        $("left").textContent = said.left;
        light({ off: `✗ ${ecg.dataset.off}`, noisy: `~ ${ecg.dataset.noisy}`, good: `✓ ${ecg.dataset.good}` }[said.light], { off: "bad", noisy: "warn", good: "good" }[said.light]);
      }
      if (said.saving) light(ecg.dataset.saving, "");
      if (said.done) location.replace(said.done);
      if (said.error) { trouble(`${said.error} ${said.remedy}`); $("start").disabled = false; $("start").classList.remove("busy"); }
    };
    socket.onclose = () => { $("start").disabled = false; $("start").classList.remove("busy"); };
  });
}

const eye = $("eye");
if (eye) {
  const canvas = $("preview"), context = canvas.getContext("2d"), socket = channel(eye.dataset.url);
  window.frames_drawn = 0;
  socket.onmessage = async (event) => {
    if (typeof event.data === "string") {
      const said = JSON.parse(event.data);
      if (said.none) light(eye.dataset.none, "warn");
      else if (said.error) trouble(`${said.error} ${said.remedy}`);
      else {
        $("focus").value = said.focus;
        light(eye.dataset[said.light], said.light === "good" ? "good" : "warn");
      }
      return;
    }
    const picture = await createImageBitmap(new Blob([event.data], { type: "image/jpeg" }));
    const size = Math.min(picture.width, picture.height);
    context.drawImage(picture, (picture.width - size) / 2, (picture.height - size) / 2, size, size, 0, 0, canvas.width, canvas.height);
    picture.close(); window.frames_drawn += 1;
    if (socket.readyState === 1) socket.send("drawn");
  };
}

// -- who is watched: calls on every page, the numbers on one
const look = async (url, into) => {
  const answer = await fetch(url).catch(() => null);
  if (answer && answer.ok && !answer.redirected) into.innerHTML = await answer.text();  // our own template, escaped there
};
let sound = null;
const ring = (high) => {
  sound = sound || new AudioContext();
  for (let n = 0; n < (high ? 3 : 1); n += 1) {
    const tone = sound.createOscillator(), from = sound.currentTime + n * 0.25;
    tone.frequency.value = high ? 988 : 660; tone.connect(sound.destination); tone.start(from); tone.stop(from + 0.15);
  }
};
setInterval(async () => {
  await look("/calls", $("calls"));
  const loudest = document.querySelector("#calls [data-sound=urgent], #calls [data-sound=emergency]") || document.querySelector("#calls [data-sound]");
  if (loudest) ring(loudest.dataset.sound !== "soon");
  if ($("numbers")) await look($("numbers").dataset.url, $("numbers"));
}, 3000);

// -- lock when nobody touches it; the server locks by itself too, this only shows it
const lockAfter = Number(document.body.dataset.lock) * 1000;
if (lockAfter) {
  let used = Date.now();
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => { used = Date.now(); });
  setInterval(() => { if (Date.now() - used > lockAfter + 2000) location.replace("/lock"); }, 5000);
  setInterval(async () => {
    const answer = await fetch("/status").catch(() => null);
    if (!answer || !answer.ok) return;
    if (answer.redirected) { location.replace("/lock"); return; }
    $("status").outerHTML = await answer.text();  // our own template, escaped there
  }, 10000);
}

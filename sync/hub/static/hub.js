"use strict";
// Everything here only helps: without this script the pages show the same facts.

for (const time of document.querySelectorAll("time.local")) {
  const at = new Date(time.dateTime);
  if (!isNaN(at)) {
    time.title = time.textContent;
    time.textContent = at.toLocaleString(document.documentElement.lang === "zh" ? "zh-CN" : "en-GB", {
      year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
    });
  }
}

for (const frame of document.querySelectorAll("[data-zoom]")) {
  let scale = 1, x = 0, y = 0, drag = null;
  const images = frame.querySelectorAll("img");
  const place = () => {
    const box = frame.getBoundingClientRect();
    scale = Math.min(12, Math.max(1, scale));
    x = Math.min(0, Math.max(box.width * (1 - scale), x));
    y = Math.min(0, Math.max(box.height * (1 - scale), y));
    for (const image of images) image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
  };
  const zoom = (factor, px, py) => {
    const before = scale;
    scale = Math.min(12, Math.max(1, scale * factor));
    x = px - (px - x) * scale / before;
    y = py - (py - y) * scale / before;
    place();
  };
  frame.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = frame.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  frame.addEventListener("pointerdown", (event) => { drag = [event.clientX - x, event.clientY - y]; frame.setPointerCapture(event.pointerId); event.preventDefault(); });
  frame.addEventListener("pointermove", (event) => { if (drag) { x = event.clientX - drag[0]; y = event.clientY - drag[1]; place(); } });
  frame.addEventListener("pointerup", () => { drag = null; });
  frame.addEventListener("keydown", (event) => {
    const box = frame.getBoundingClientRect();
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    if (event.key === "+" || event.key === "=") zoom(1.25, box.width / 2, box.height / 2);
    else if (event.key === "-") zoom(0.8, box.width / 2, box.height / 2);
    else if (event.key === "0") { scale = 1; x = y = 0; place(); }
    else if (steps[event.key]) { x += steps[event.key][0]; y += steps[event.key][1]; place(); }
    else return;
    event.preventDefault();
  });

  const tools = frame.parentElement.querySelector("[data-tools]");
  const contrast = tools.querySelector("[data-contrast]"), brightness = tools.querySelector("[data-brightness]");
  const green = tools.querySelector("[data-green]");
  const shade = () => {
    const redFree = green.getAttribute("aria-pressed") === "true" ? "url(#red-free)" : "";
    for (const image of images) image.style.filter = `contrast(${contrast.value}%) brightness(${brightness.value}%) ${redFree}`;
  };
  contrast.addEventListener("input", shade);
  brightness.addEventListener("input", shade);
  green.addEventListener("click", () => { green.setAttribute("aria-pressed", String(green.getAttribute("aria-pressed") !== "true")); shade(); });
  tools.querySelector("[data-reset]").addEventListener("click", () => {
    contrast.value = brightness.value = 100; green.setAttribute("aria-pressed", "false"); shade();
    scale = 1; x = y = 0; place();
  });
  tools.hidden = !frame.querySelector(".retina");
}

for (const hint of document.querySelectorAll("[data-calipers-hint]")) hint.hidden = false;
for (const svg of document.querySelectorAll("[data-calipers]")) {
  const made = (name, cls) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    element.setAttribute("class", cls);
    svg.appendChild(element);
    return element;
  };
  // two points on the paper in millimetres: 25 mm are a second, 10 mm are a millivolt
  let from = null, to = null, dragging = false, box = null, text = null;
  const view = svg.viewBox.baseVal, told = svg.closest("section").querySelector("[data-measured]");
  const point = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const show = () => {
    if (!box) { box = made("rect", "caliper"); text = made("text", "caliper-text"); }
    const x = Math.min(from.x, to.x), y = Math.min(from.y, to.y), width = Math.abs(to.x - from.x), height = Math.abs(to.y - from.y);
    for (const [name, value] of Object.entries({ x, y, width, height: Math.max(height, .2) })) box.setAttribute(name, value);
    text.setAttribute("x", Math.min(x + 1, view.width - 50));
    text.setAttribute("y", Math.max(8, y - 1));
    const ms = width / 25 * 1000, rate = ms > 0 ? ` · ${(60000 / ms).toFixed(0)}/min` : "";
    text.textContent = `${ms.toFixed(0)} ms${rate} · ${(height / 10).toFixed(2)} mV`;
    if (told) told.textContent = text.textContent;
  };
  svg.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    from = to = point(event);
    dragging = true;
    svg.focus({ preventScroll: true });
    svg.setPointerCapture(event.pointerId);
  });
  svg.addEventListener("pointermove", (event) => { if (dragging) { to = point(event); show(); } });
  svg.addEventListener("pointerup", () => { dragging = false; });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape" && box) { box.remove(); text.remove(); from = to = box = text = null; if (told) told.textContent = ""; return; }
    if (!step) return;
    event.preventDefault();
    if (!from) { from = { x: view.width / 2, y: view.height / 2 }; to = { x: from.x + 20, y: from.y }; }
    const old = event.shiftKey ? from : to;
    const moved = { x: Math.min(view.width, Math.max(0, old.x + step[0] / 2)), y: Math.min(view.height, Math.max(0, old.y + step[1] / 2)) };
    if (event.shiftKey) from = moved; else to = moved;
    show();
  });
}

const badge = document.querySelector("[data-alerts]");
if (badge) {
  const waiting = document.querySelector("[data-waiting]");
  const levels = () => waiting ? [...waiting.querySelectorAll("[data-level]")] : [];
  const sound = () => {
    // browsers allow sound only after the reader has touched the page; the notice shows either way
    const context = new AudioContext(), tone = context.createOscillator(), volume = context.createGain();
    tone.frequency.value = 880;
    volume.gain.value = 0.1;
    tone.connect(volume).connect(context.destination);
    tone.start();
    tone.stop(context.currentTime + 0.35);
    tone.onended = () => context.close();
  };
  const ask = async () => {
    const answer = await fetch("/waiting.json", { redirect: "error" });
    if (!answer.ok) return;
    const now = await answer.json(), news = document.querySelector("[data-news]"), grave = document.querySelector("[data-grave]");
    const more = now.alerts > Number(badge.textContent);
    badge.textContent = now.alerts;
    badge.hidden = now.alerts === 0;
    grave.hidden = now.alerts === 0 || !(more || !grave.hidden);
    // nobody has answered yet: it is heard again with each turn until somebody does
    if (now.alerts > 0) sound();
    if (!news || !levels().some((item) => now[item.dataset.level] > Number(item.textContent))) return;
    for (const item of levels()) item.textContent = now[item.dataset.level];
    news.hidden = false;
  };
  // away from the network for a while is normal: the next turn asks again
  const again = () => ask().catch(() => {});
  setInterval(again, 15000);
  document.addEventListener("visibilitychange", again);
}

"use strict";
// The page renders itself anew when a check's state changes, and once a minute for its figures.
(() => {
  const main = document.getElementById("main");
  const live = document.getElementById("live");
  let waiting = 0;

  async function refresh() {
    const open = [...main.querySelectorAll("details")].map((one) => one.open);
    const focused = document.activeElement;
    if (focused && focused.matches("input")) return;
    const kind = focused && focused.matches("summary") ? "summary" : `a[href="${focused?.getAttribute("href")}"]`;
    const place = [...main.querySelectorAll(kind)].indexOf(focused);
    const answer = await fetch(location.href, { headers: { "x-part": "main" } });
    if (!answer.ok) return;
    const text = await answer.text();
    main.innerHTML = text;
    [...main.querySelectorAll("details")].forEach((one, number) => {
      if (open[number] !== undefined) one.open = open[number];
    });
    if (place >= 0) main.querySelectorAll(kind)[place]?.focus({ preventScroll: true });
  }

  function soon() {
    clearTimeout(waiting);
    waiting = setTimeout(() => refresh().catch(() => {}), 300);
  }

  const source = new EventSource("/live/sse/status");
  let lost = false;
  source.onopen = () => {
    live.textContent = "live";
    live.className = "live on";
    if (lost) soon(); // what was missed meanwhile
    lost = false;
  };
  source.onerror = () => { lost = true; live.textContent = "reconnecting"; live.className = "live"; };
  source.onmessage = soon;
  setInterval(soon, 60000);
})();

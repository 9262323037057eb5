"use strict";
(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Theme: as the system, light, dark; remembered where the browser lets a page remember.
  const themes = ["auto", "light", "dark"];
  const button = one("#theme");
  const remember = (name) => { try { localStorage.setItem("gradcam-bench-theme", name); } catch { /* not allowed */ } };
  const recall = () => { try { return localStorage.getItem("gradcam-bench-theme"); } catch { return null; } };
  const paint = (name) => {
    if (name === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.textContent = `Theme: ${name}`;
    button.setAttribute("aria-label", `Colour theme: ${name === "auto" ? "as the system" : name}`);
  };
  let theme = themes.includes(recall()) ? recall() : "auto";
  paint(theme);
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    paint(theme);
    remember(theme);
  });

  // Tables: a header sorts its column, best first, then the other way; what has no number stays last.
  for (const sorter of all("button.sort")) {
    sorter.addEventListener("click", () => {
      const head = sorter.closest("th");
      const row = head.parentElement;
      const place = [...row.children].indexOf(head);
      const flip = { ascending: "descending", descending: "ascending" };
      const order = flip[head.getAttribute("aria-sort")] ?? sorter.dataset.first;
      for (const other of row.children) other.setAttribute("aria-sort", other === head ? order : "none");
      const body = one("tbody", row.closest("table"));
      const sign = order === "ascending" ? 1 : -1;
      const text = place === 0;
      const value = (line) => line.children[place].dataset.value;
      const compare = (a, b) => {
        if (text) return sign * value(a).localeCompare(value(b));
        const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      };
      body.append(...[...body.rows].sort(compare));
    });
  }

  for (const copier of all("button.copy")) {
    const label = copier.textContent;
    copier.addEventListener("click", async () => {
      const source = document.getElementById(copier.dataset.from);
      let done = false;
      try {
        await navigator.clipboard.writeText(source.value);
        done = true;
      } catch {
        source.closest("details").open = true;
        source.select();
        done = document.execCommand("copy");
      }
      copier.textContent = done ? "Copied" : "Select and copy below";
      setTimeout(() => { copier.textContent = label; }, 1600);
    });
  }

  const gallery = one("#gallery");
  if (!gallery) return;
  const select = one("#method");
  const viewer = one("#viewer");
  const thumbs = all(".thumb", gallery);
  const strip = all("#viewer-strip button");
  let current = 0;

  for (const box of all("[data-toggle]", gallery)) {
    const apply = () => gallery.classList.toggle(box.dataset.toggle, !box.checked);
    box.addEventListener("change", apply);
    apply();
  }
  // Filters: a case stays that fits all of them; a group without any goes.
  const filters = all("[data-filter]", gallery);
  const sift = () => {
    for (const thumb of thumbs) thumb.hidden = !filters.every(({ value, dataset }) => !value || thumb.dataset[dataset.filter] === value);
    for (const group of all(".group", gallery)) group.hidden = !one(".thumb:not([hidden])", group);
    one("#shown").textContent = `${thumbs.filter((thumb) => !thumb.hidden).length} of ${thumbs.length} cases`;
  };
  for (const filter of filters) filter.addEventListener("change", sift);
  sift();

  const opacity = one("#opacity");
  const fade = () => gallery.style.setProperty("--opacity", opacity.value / 100);
  opacity.addEventListener("input", fade);
  fade();

  const note = () => {
    const score = one(`.score[data-layer="${gallery.dataset.method}"]`, thumbs[current]);
    one("#viewer-note").textContent = score ? `${score.textContent} · ${score.dataset.caption}` : "no map";
  };
  const pick = (method) => {
    gallery.dataset.method = method;
    select.value = method;
    for (const choice of strip) choice.setAttribute("aria-pressed", choice.dataset.method === method);
    note();
  };
  select.addEventListener("change", () => pick(select.value));
  for (const choice of strip) choice.addEventListener("click", () => pick(choice.dataset.method));

  // A copy of the case's pictures that shows one method whatever the gallery shows.
  const alone = (stack, method) => {
    const copy = stack.cloneNode(true);
    for (const layer of all("[data-layer]", copy)) {
      if (layer.dataset.layer === method) layer.removeAttribute("data-layer");
      else layer.remove();
    }
    return copy;
  };
  const step = (by) => {
    const shown = thumbs.filter((thumb) => !thumb.hidden);
    show(thumbs.indexOf(shown[(shown.indexOf(thumbs[current]) + by + shown.length) % shown.length]));
  };
  const show = (place) => {
    current = place;
    const thumb = thumbs[current];
    const stack = one(".stack", thumb);
    one("#viewer-title").textContent = `${thumb.dataset.name} · ${thumb.dataset.image}`;
    one("#viewer-large").replaceChildren(stack.cloneNode(true));
    for (const choice of strip) {
      const score = one(`.score[data-layer="${choice.dataset.method}"]`, thumb);
      choice.hidden = !score;
      one(".frame", choice).replaceChildren(alone(stack, choice.dataset.method));
      one(".score", choice).textContent = score ? score.textContent : "";
    }
    pick(gallery.dataset.method);
    if (!viewer.open) viewer.showModal();
  };
  thumbs.forEach((thumb, place) => thumb.addEventListener("click", () => show(place)));
  one("#previous").addEventListener("click", () => step(-1));
  one("#next").addEventListener("click", () => step(1));
  one("#close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => thumbs[current].focus());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  pick(gallery.dataset.method);
})();

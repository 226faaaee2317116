// Puts each picture's live twin in its place when it comes into sight; without this script the drawn one stays.
const rows = (spec) => [...Object.values(spec.datasets ?? {}), ...spec.layer.map((layer) => layer.data?.values ?? [])].flat();

const wake = async (plot) => {
  const spec = JSON.parse(plot.querySelector("script").textContent);
  const tips = [];
  for (const datum of rows(spec)) if (datum.i !== undefined) tips[datum.i] = datum.tip;
  const live = document.createElement("div");
  const told = plot.parentElement.querySelector(".told");
  let current = -1;
  let view;
  const tell = (i) => {
    if (i === current) return;
    current = i;
    told.textContent = tips[i] ?? "";
    view.signal("current", i).runAsync();
  };
  const tooltip = (handler, event, item) => tell(item?.datum?.i ?? -1);
  const options = { ast: true, renderer: "svg", actions: false, defaultStyle: false, tooltip };
  ({ view } = await vegaEmbed(live, spec, options));
  const drawn = live.querySelector("svg");
  drawn.classList.add("chart");
  drawn.setAttribute("aria-hidden", "true");
  for (const name of ["width", "height"]) drawn.removeAttribute(name);
  for (const name of ["role", "aria-roledescription", "aria-label"]) live.removeAttribute(name);
  plot.querySelector("svg").replaceWith(live);
  plot.addEventListener("keydown", (event) => {
    const last = tips.length - 1;
    const steps = {
      ArrowRight: Math.min(current + 1, last), ArrowDown: Math.min(current + 1, last),
      ArrowLeft: Math.max(current - 1, 0), ArrowUp: Math.max(current - 1, 0), Home: 0, End: last, Escape: -1,
    };
    if (event.key in steps) {
      event.preventDefault();
      tell(steps[event.key]);
    }
  });
  plot.addEventListener("blur", () => tell(-1));
};

const watcher = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      wake(target);
    }
  },
  { rootMargin: "400px" },
);
for (const plot of document.querySelectorAll(".plot")) {
  plot.tabIndex = 0;
  plot.setAttribute("aria-label", `${plot.getAttribute("aria-label")} ${plot.dataset.keys}`);
  watcher.observe(plot);
}

// Printed pages show their tables as well.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));

// The start of the page: language, address, models, views.

import { api } from "./api.js";
import { drawCatalogue } from "./catalogue.js";
import { startConditions, titlesCame, translateConditions } from "./conditions.js";
import { button, byId, fill, h } from "./dom.js";
import { loadUser, startHistory, translateHistory } from "./history.js";
import { chosen, startLists, translateLists } from "./lists.js";
import { drawModels } from "./models.js";
import { change, fromHash, onChange, remember, state, titles } from "./state.js";
import { LANGUAGES, language, moment, setLanguage, startLanguage, t, translate } from "./texts.js";
import { noTrouble, translateTrouble, trouble } from "./trouble.js";

const VIEWS = ["recommend", "catalogue", "models"];
const LOOKUPS = 60; // ids whose titles are looked up
let served = null;
let drawn = {}; // views that were drawn since the language or the models changed

function translateAll() {
  translate(document);
  fill(
    byId("languages"),
    Object.entries(LANGUAGES).map(([name, text]) =>
      button(
        text,
        () => { setLanguage(name); translateAll(); },
        { lang: name, class: "link", "aria-pressed": String(name === language()) },
      ),
    ),
  );
  translateHistory();
  translateConditions();
  translateLists();
  translateTrouble();
  drawn = {};
  drawView();
}

function drawView() {
  for (const view of VIEWS) {
    byId(`view-${view}`).hidden = view !== state.view;
    const link = document.querySelector(`[data-view="${view}"]`);
    if (view === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${t(state.view)} · sasrec`;
  byId("skip").hidden = state.view !== "recommend";
  if (!served || drawn[state.view]) return;
  drawn[state.view] = true;
  if (state.view === "models") drawModels(served);
  if (state.view === "catalogue") drawCatalogue(served);
}

/** Ids from an address have no titles yet. */
async function findTitles() {
  const shown = new Set([...state.history.slice(-LOOKUPS), ...state.deny, ...state.allow]);
  const missing = [...shown].filter((id) => !titles.has(id)).slice(0, LOOKUPS);
  if (!missing.length) return;
  try {
    const keep = (items) => remember(items.filter((item) => missing.includes(String(item.item))));
    keep((await api.named(missing)).items);
    for (const id of missing.filter((each) => !titles.has(each))) {
      const { items } = await api.items(id, 100, 0);
      keep(items);
    }
  } catch {
    return; // the ids themselves are shown
  }
  translateHistory();
  titlesCame();
}

async function openAddress() {
  const read = fromHash(location.hash);
  change(read);
  if (read.user && !read.edited) await loadUser(read.user, { quiet: true });
  await findTitles();
}

async function start() {
  try {
    served = await api.models();
  } catch (error) {
    return trouble(error, start);
  }
  noTrouble();
  fill(
    byId("serving"),
    served.models.map((model) => h("span", {}, model.name, " ", h("code", {}, String(model.hash).slice(0, 8)))),
  );
  const read = fromHash(location.hash);
  const known = served.models.map((model) => model.name);
  Object.assign(state, { ...read, models: read.models.filter((name) => known.includes(name)) });
  startConditions(served);
  await openAddress();
  startLists(served);
  translateHistory();
  drawn = {};
  drawView();
}

byId("views").addEventListener("click", (event) => {
  const link = event.target.closest("[data-view]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  change({ view: link.dataset.view });
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment of the address is the state
  byId("list").focus();
});
window.addEventListener("hashchange", openAddress);
window.addEventListener("beforeprint", () => {
  byId("printed").textContent = `${t("print")} ${location.href} · ${moment(new Date())}`;
});
onChange((names) => names.includes("view") && drawView());

startLanguage();
Object.assign(state, fromHash(location.hash));
startHistory({ chosen, failed: trouble });
translateAll();
start();

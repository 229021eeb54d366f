"use strict";
// The browser of paired answers. Reads the JSON in #data and builds every element with
// textContent, so that nothing a model wrote is ever read as markup.
(() => {
  const byId = (id) => document.getElementById(id);
  if (!byId("list")) return;
  const data = JSON.parse(byId("data").textContent);
  const LONG = { characters: 600, lines: 8 }; // longer answers are folded
  const FIELDS = ["id", "register", "language", "wrote", "system", "turns", "base", "tuned",
    "baseCut", "tunedCut"];
  const pairs = data.pairs.map((row) => Object.fromEntries(FIELDS.map((name, i) => [name, row[i]])));
  const state = { shown: pairs, page: 0 };

  const number = (n) => n.toLocaleString("en");

  const element = (name, className, text) => {
    const made = document.createElement(name);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // Pieces of a text: those at odd places are emoji.
  const addPieces = (parent, pieces) => {
    pieces.forEach((piece, i) => {
      if (i % 2) parent.append(element("mark", "", piece));
      else if (piece) parent.append(piece);
    });
    return parent;
  };

  const turn = (role, pieces) => {
    const made = element("p", "turn");
    made.dir = "auto";
    made.append(element("span", "role", role));
    return addPieces(made, pieces);
  };

  const side = (name, pieces, label, language) => {
    const made = element("div", `side ${name}`);
    made.append(element("h4", "", label));
    const text = element("div", "answer");
    text.dir = "auto";
    text.lang = language;
    made.append(text);
    const whole = pieces.join("");
    if (!whole) text.append(element("span", "empty", "an empty answer"));
    addPieces(text, pieces);
    if (whole.length > LONG.characters || whole.split("\n").length > LONG.lines) {
      const size = `${number(whole.length)} characters, ${(pieces.length - 1) / 2} emoji`;
      made.append(unfolder(text, size, label));
    }
    return made;
  };

  const unfolder = (text, size, label) => {
    const button = element("button");
    button.type = "button";
    const fold = (folded) => {
      text.classList.toggle("folded", folded);
      button.setAttribute("aria-expanded", String(!folded));
      button.textContent = folded ? `Show all: ${size}` : "Show less";
      button.append(element("span", "vh", ` of the answer of ${label}`));
    };
    button.addEventListener("click", () => fold(!text.classList.contains("folded")));
    fold(true);
    return button;
  };

  const article = (pair) => {
    const made = element("article");
    const title = element("h3", "", pair.id);
    title.dir = "auto";
    made.append(title);
    const language = data.languages[pair.language];
    const tags = [data.registers[pair.register], language === "und" ? "" : language,
      `emoji: ${data.wrote[pair.wrote]}`];
    if (pair.baseCut) tags.push(`base cut at the token limit: ${pair.baseCut}`);
    if (pair.tunedCut) tags.push(`tuned cut at the token limit: ${pair.tunedCut}`);
    made.append(element("p", "tags", tags.filter(Boolean).join(" · ")));
    if (pair.system) made.append(turn("system", pair.system));
    pair.turns.forEach(([role, pieces]) => made.append(turn(role, pieces)));
    const sides = element("div", "sides");
    const samples = Math.max(pair.base.length, pair.tuned.length);
    for (let i = 0; i < samples; i += 1) {
      const which = samples > 1 ? `, sample ${i + 1}` : "";
      for (const name of ["base", "tuned"]) {
        sides.append(side(name, pair[name][i] || [""], name + which, language));
      }
    }
    made.append(sides);
    return made;
  };

  // What is searched in a pair, made when it is first asked for.
  const haystack = (pair) => {
    if (pair.text === undefined) {
      const texts = [...pair.turns.map(([, pieces]) => pieces), ...pair.base, ...pair.tuned];
      if (pair.system) texts.push(pair.system);
      pair.text = [pair.id, ...texts.map((pieces) => pieces.join(""))].join("\n").toLowerCase();
    }
    return pair.text;
  };

  const pageSize = () => Number(byId("size").value);
  const nPages = () => Math.max(1, Math.ceil(state.shown.length / pageSize()));

  const draw = () => {
    state.page = Math.min(Math.max(state.page, 0), nPages() - 1);
    const start = state.page * pageSize();
    const rows = state.shown.slice(start, start + pageSize());
    byId("list").replaceChildren(...rows.map(article));
    const range = rows.length ? `, ${number(start + 1)} to ${number(start + rows.length)} shown` : "";
    byId("count").textContent = `${number(state.shown.length)} of ${number(pairs.length)} prompts${range}`;
    byId("page").value = state.page + 1;
    byId("page").max = nPages();
    byId("pages").textContent = `of ${number(nPages())}`;
    byId("previous").disabled = state.page === 0;
    byId("next").disabled = state.page >= nPages() - 1;
    byId("pager").hidden = !state.shown.length;
  };

  const filter = () => {
    const wanted = ["register", "language", "wrote"]
      .map((name) => [name, byId(name).value])
      .filter(([, value]) => value !== "");
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    state.shown = pairs.filter((pair) =>
      wanted.every(([name, value]) => pair[name] === Number(value)) &&
      words.every((word) => haystack(pair).includes(word)));
    state.page = 0;
    draw();
  };

  const turnTo = (page) => {
    state.page = page;
    draw();
    byId("answers").scrollIntoView();
  };

  const options = (id, names) => {
    const counts = names.map((_, i) => pairs.filter((pair) => pair[id] === i).length);
    names.forEach((name, i) => {
      const option = element("option", "", `${name} (${number(counts[i])})`);
      option.value = String(i);
      byId(id).append(option);
    });
  };

  options("register", data.registers);
  options("language", data.languages);
  options("wrote", data.wrote);
  byId("language-label").hidden = data.languages.length < 2;

  let waiting = 0;
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("change", filter);
  byId("filters").addEventListener("reset", () => setTimeout(filter));
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 150);
  });
  byId("previous").addEventListener("click", () => turnTo(state.page - 1));
  byId("next").addEventListener("click", () => turnTo(state.page + 1));
  byId("page").addEventListener("change", () => turnTo((Number(byId("page").value) || 1) - 1));
  byId("size").addEventListener("change", () => turnTo(0));
  byId("filters").hidden = false;
  draw();
})();

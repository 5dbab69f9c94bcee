"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 200;

  // a missing value stands last, whichever way a column is sorted
  const compare = (a, b, sign) => {
    const none = (v) => v === null || v === undefined || v === "";
    if (none(a) || none(b)) return none(a) - none(b);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b), "en", { numeric: true });
  };
  const turn = (header) => {
    const next = header.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
    const way = header.classList.contains("text") && header.getAttribute("aria-sort") === "none" ? "ascending" : next;
    for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", way);
    return way === "ascending" ? 1 : -1;
  };
  const key = (row, column) => {
    const cell = row.children[column];
    const text = cell.dataset.v ?? cell.textContent;
    return cell.classList.contains("num") && text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      header.firstElementChild.addEventListener("click", () => {
        const sign = turn(header);
        const body = table.tBodies[0];
        const rows = [...body.rows].filter((row) => !row.classList.contains("detail"));
        const groups = rows.map((row) => {
          const below = row.nextElementSibling;
          return { value: key(row, column), rows: below && below.classList.contains("detail") ? [row, below] : [row] };
        });
        groups.sort((a, b) => compare(a.value, b.value, sign));
        body.append(...groups.flatMap((group) => group.rows));
      });
    });
  }

  // --- the images of a method: made when asked for, so that thousands of records weigh nothing until then
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text; // never as HTML: names of images are anybody's
    if (name) element.className = name;
    return element;
  };
  const number = (value, digits) => (value === null ? "–" : typeof value === "string" ? value : value.toFixed(digits));
  const COLUMNS = [
    ["image", "text", (r) => data.images[r[1]][0], (v) => v],
    ["seed", "num", (r) => data.runs[r[0]][2], (v) => String(v)],
    ["result", "num", (r) => r[3], (v) => number(v, 2)],
    ["last", "num", (r) => r[4], (v) => number(v, 2)],
    ["best (oracle)", "num", (r) => r[5], (v) => number(v, 2)],
    ["at step", "num", (r) => r[6], (v) => number(v, 0)],
    ["EMA", "num", (r) => r[7], (v) => number(v, 2)],
    ["SSIM", "num", (r) => r[8], (v) => number(v, 3)],
    ["steps", "num", (r) => r[9], (v) => number(v, 0)],
    ["seconds", "num", (r) => r[10], (v) => number(v, 1)],
  ];
  const origin = (record) => {
    const [folder, command] = data.runs[record[0]];
    const [, word] = data.images[record[1]];
    const name = data.images[record[2] < 0 ? record[1] : record[2]][0];
    const cell = make("td", undefined, "cmd");
    const box = make("details");
    box.append(make("summary", "command, folder"));
    box.append(make("code", command ? `${command} ${word}`.trim() : "An earlier version wrote this record, without its command."));
    box.append(make("code", `${folder}/${name}`));
    cell.append(box);
    return cell;
  };
  const line = (record) => {
    const row = make("tr");
    COLUMNS.forEach(([, kind, value, show], column) => {
      const cell = make(column ? "td" : "th", show(value(record)), kind);
      if (!column) cell.scope = "row";
      row.append(cell);
    });
    row.append(origin(record));
    return row;
  };
  const detail = (name, span) => {
    const records = [...data.cells[name]];
    const table = make("table");
    const body = make("tbody");
    const more = make("button", undefined, "more");
    more.type = "button";
    let shown = 0;
    const grow = () => {
      const next = records.slice(shown, shown + PAGE);
      body.append(...next.map(line));
      shown += next.length;
      more.hidden = shown >= records.length;
      more.textContent = `Show ${Math.min(PAGE, records.length - shown)} more of ${records.length}`;
    };
    const heads = make("tr");
    for (const [title, kind, value] of COLUMNS) {
      const header = make("th", undefined, kind);
      header.scope = "col";
      header.setAttribute("aria-sort", "none");
      const button = make("button", title);
      button.type = "button";
      button.addEventListener("click", () => {
        const sign = turn(header);
        records.sort((a, b) => compare(value(a), value(b), sign));
        body.replaceChildren();
        shown = 0;
        grow();
      });
      header.append(button);
      heads.append(header);
    }
    heads.append(make("th", "to make it again", "text"));
    table.append(make("thead"), body);
    table.tHead.append(heads);
    more.addEventListener("click", grow);
    grow();
    const cell = make("td");
    cell.colSpan = span;
    const inside = make("div", undefined, "inside");
    inside.append(table, more);
    cell.append(inside);
    const row = make("tr", undefined, "detail");
    row.append(cell);
    return row;
  };
  for (const button of document.querySelectorAll("button.open")) {
    button.addEventListener("click", () => {
      const row = button.closest("tr");
      const open = button.getAttribute("aria-expanded") === "true";
      if (open) row.nextElementSibling.remove();
      else row.after(detail(button.dataset.cell, row.children.length));
      button.setAttribute("aria-expanded", String(!open));
    });
  }
})();

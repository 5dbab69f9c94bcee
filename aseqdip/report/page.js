"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 200;

  // the number that a text begins with; what has none stands last, whichever way a column is sorted
  const number = (text) => parseFloat(text.replace("−", "-"));
  const compare = (a, b, sign, words) => {
    if (words) return sign * a.localeCompare(b, "en", { numeric: true });
    const [x, y] = [number(a), number(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return x === y ? 0 : sign * (x - y);
  };
  const sortable = (header, words, sort) => {
    header.firstElementChild.addEventListener("click", () => {
      const was = header.getAttribute("aria-sort");
      const up = was === "descending" || (was === "none" && words);
      for (const other of header.parentNode.children) other.setAttribute("aria-sort", "none");
      header.setAttribute("aria-sort", up ? "ascending" : "descending");
      sort(up ? 1 : -1);
    });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const words = header.classList.contains("text");
      sortable(header, words, (sign) => {
        for (const open of body.querySelectorAll('[aria-expanded="true"]')) open.click();
        const text = (row) => row.children[column].textContent;
        body.append(...[...body.rows].sort((a, b) => compare(text(a), text(b), sign, words)));
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
  const HEADS = ["image", "seed", "result", "last", "best (oracle)", "at step", "EMA", "SSIM", "steps", "seconds"];
  const DIGITS = [2, 2, 2, 0, 2, 3, 0, 1];
  const shown = (value, digits) => (value === null ? "–" : typeof value === "string" ? value : value.toFixed(digits));
  const texts = ([run, image, , ...numbers]) => [
    data.images[image][0],
    String(data.runs[run][2]),
    ...numbers.map((value, place) => shown(value, DIGITS[place])),
  ];
  const origin = ([run, image, folder]) => {
    const cell = make("td", undefined, "cmd");
    const box = make("details");
    const [place, command] = data.runs[run];
    const line = `${command} ${data.images[image][1]}`.trim();
    box.append(make("summary", "command, folder"));
    box.append(make("code", command ? line : "An earlier version wrote this record, without its command."));
    box.append(make("code", `${place}/${data.images[folder < 0 ? image : folder][0]}`));
    cell.append(box);
    return cell;
  };
  const detail = (name, span) => {
    const records = data.cells[name].map((record) => ({ record, texts: texts(record) }));
    const [table, body, more, heads] = [make("table"), make("tbody"), make("button", undefined, "more"), make("tr")];
    let count = 0;
    const grow = () => {
      for (const { record, texts } of records.slice(count, count + PAGE)) {
        const row = make("tr");
        row.append(...texts.map((text, place) => make(place ? "td" : "th", text)), origin(record));
        body.append(row);
      }
      count += PAGE;
      more.hidden = count >= records.length;
      more.textContent = `Show ${Math.min(PAGE, records.length - count)} more of ${records.length}`;
    };
    HEADS.forEach((title, column) => {
      const header = make("th", undefined, column ? "num" : "text");
      header.setAttribute("aria-sort", "none");
      header.append(make("button", title));
      sortable(header, !column, (sign) => {
        records.sort((a, b) => compare(a.texts[column], b.texts[column], sign, !column));
        body.replaceChildren();
        count = 0;
        grow();
      });
      heads.append(header);
    });
    heads.append(make("th", "to make it again", "text"));
    table.append(make("thead"), body);
    table.tHead.append(heads);
    more.addEventListener("click", grow);
    grow();
    const [row, cell, inside] = [make("tr", undefined, "detail"), make("td"), make("div", undefined, "inside")];
    cell.colSpan = span;
    inside.append(table, more);
    cell.append(inside);
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

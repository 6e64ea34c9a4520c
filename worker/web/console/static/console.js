"use strict";
// Nothing here is needed to read: times in the reader's own zone, changes as they come, and a keyboard.

function showTimes(root) {
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const clock = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
    const day = at.toLocaleDateString([], { year: "numeric", month: "short", day: "numeric" });
    time.textContent = at.toDateString() === today ? clock : `${day} ${clock}`;
  }
}

function isBusy(part) {
  // Somebody is reading, marking or typing there: it is left alone until the next change.
  const marked = document.getSelection();
  if (marked && !marked.isCollapsed && part.contains(marked.anchorNode)) return true;
  const focused = document.activeElement;
  return focused !== null && part.contains(focused) && focused.matches("input, textarea, select");
}

let isRefreshing = false;
let isStale = false;

async function refresh() {
  if (document.hidden || isRefreshing) { isStale = true; return; }
  isRefreshing = true;
  isStale = false;
  try {
    const response = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
    // Of an action that went on, nothing is known any more: the page that says so takes its place.
    if (response.status === 404 && document.querySelector("[data-running]")) location.reload();
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const other = fresh.getElementById(part.id);
      if (other === null || isBusy(part)) continue;
      showTimes(other);
      if (other.innerHTML === part.innerHTML) continue;
      const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      const scrolled = [...part.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
      part.replaceChildren(...other.childNodes);
      part.querySelectorAll(".scroll").forEach((each, number) => { each.scrollLeft = scrolled[number] || 0; });
      if (focused) for (const link of part.querySelectorAll("a")) if (link.getAttribute("href") === focused) { link.focus(); break; }
      choose(chosen);
    }
  } catch {
    // The console is away; its events say when it is back.
  } finally {
    isRefreshing = false;
  }
}

function listen() {
  if (!document.querySelector("main [data-live]")) return;
  const live = document.getElementById("live");
  const source = new EventSource("/events");
  let due = 0;
  source.addEventListener("change", () => {
    live.hidden = false;
    // An action may have come further, or ended, between the page and its first event.
    if (first && !document.querySelector("[data-running]")) { first = false; return; }
    first = false;
    clearTimeout(due);
    due = setTimeout(refresh, 300);
  });
  let first = true;
  source.addEventListener("error", () => { live.hidden = true; first = false; });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && isStale) refresh(); });
  addEventListener("pagehide", () => source.close());
}

let chosen = -1;

function rows() { return [...document.querySelectorAll("table.list tbody tr")]; }

function choose(number) {
  const all = rows();
  if (number < 0 || all.length === 0) return;
  chosen = Math.min(number, all.length - 1);
  all.forEach((row, each) => row.classList.toggle("chosen", each === chosen));
}

const PLACES = { h: "/", o: "/orders", d: "/dead-letters", t: "/try" };
let goes = false;

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (goes) {
    goes = false;
    if (PLACES[event.key]) location.assign(PLACES[event.key]);
    return;
  }
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector(".search input")?.focus();
  } else if (event.key === "g") {
    goes = true;
  } else if (event.key === "j" || event.key === "k") {
    choose(event.key === "j" ? chosen + 1 : Math.max(0, chosen - 1));
    rows()[chosen]?.scrollIntoView({ block: "nearest" });
  } else if (event.key === "Enter" && event.target === document.body) {
    rows()[chosen]?.querySelector("tbody th a")?.click();
  } else if (event.key === "n") {
    document.querySelector("a[rel=next]")?.click();
  }
}

showTimes(document);
listen();
document.addEventListener("keydown", press);

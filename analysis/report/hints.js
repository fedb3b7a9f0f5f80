// Hints at tables and plots that continue to the right.

// Mark a table that continues to the right, with a fade and a hint.
function hint(container) {
  const more = container.scrollWidth - container.clientWidth - container.scrollLeft > 2;
  container.classList.toggle("more", more);
  container.parentElement.querySelector(".hint").hidden = container.scrollWidth - container.clientWidth <= 2;
}

function hintAll() {
  for (const container of document.querySelectorAll(".wide")) hint(container);
}

function followHints() {
  for (const container of document.querySelectorAll(".wide")) {
    container.addEventListener("scroll", () => hint(container), { passive: true });
  }
  addEventListener("resize", hintAll);
}

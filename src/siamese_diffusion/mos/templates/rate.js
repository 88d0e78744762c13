// Keys for the rating page, and no second submission by a double click. The page works without.
"use strict";
(() => {
  const form = document.getElementById("rating");
  let sent = false;
  let oneAt = -Infinity; // when the digit 1 was pressed, for "10"

  const choose = (name, value) => {
    const input = form.querySelector(`input[name="${name}"][value="${value}"]`);
    input.checked = true;
    input.focus();
  };

  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
  // A page that comes back from the browser's memory may be sent again; the server sorts it out.
  window.addEventListener("pageshow", () => { sent = false; });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const key = event.key.toLowerCase();
    if (key === "r") choose("vote", "real");
    else if (key === "s") choose("vote", "synthetic");
    else if (/^[0-9]$/.test(key)) {
      const ten = key === "0" && event.timeStamp - oneAt < 1500;
      choose("confidence", ten ? 10 : key);
      oneAt = key === "1" ? event.timeStamp : -Infinity;
    } else if (key === "enter") form.requestSubmit();
    else return;
    event.preventDefault();
  });
})();

// In a saved page: every view gets the instances that the page holds, where a notebook has a kernel.

const base64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

for (const holder of document.querySelectorAll("script.dpc-data")) {
  const page = JSON.parse(holder.textContent);
  const state = { study: page.study, case: {}, data: null, opened: -1, selected_token: -1 };
  const listeners = [];
  const show = (index) => Object.assign(state, { case: page.cases[index].case, data: base64(page.cases[index].data) });
  const model = {
    get: (name) => state[name],
    set(name, value) {
      state[name] = value;
      if (name !== "opened") return;
      show(value);
      listeners.forEach((listener) => listener());
    },
    save_changes() {},
    on: (_, listener) => listeners.push(listener),
  };
  if (!page.study.rows) show(0);
  render({ model, el: holder.parentElement });
}

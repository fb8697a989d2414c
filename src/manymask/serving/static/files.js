// an image may be dropped anywhere, or pasted
function hand(files) {
  const input = document.querySelector("#mm-upload input[type=file]");
  if (!input || !files.length) return false;
  input.files = files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  return true;
}
// what is dropped may hold folders: the files in them, at any depth, without hidden ones
const entriesOf = (transfer) => [...transfer.items].map((one) => one.webkitGetAsEntry && one.webkitGetAsEntry()).filter(Boolean);

async function filesIn(entry) {
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((done, failed) => entry.file(done, failed))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((done, failed) => reader.readEntries(done, failed)); // a hundred at a time
    if (!some.length) break;
    found.push(...some);
  }
  found.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return (await Promise.all(found.map(filesIn))).flat();
}

async function handFolders(entries) {
  const carrier = new DataTransfer();
  for (const file of (await Promise.all(entries.map(filesIn))).flat()) carrier.items.add(file);
  hand(carrier.files);
}

document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  const entries = entriesOf(event.dataTransfer);
  const folder = entries.some((entry) => entry.isDirectory);
  if (!folder && event.target.closest && event.target.closest("#mm-upload")) return;
  event.preventDefault();
  if (!folder) return hand(event.dataTransfer.files);
  event.stopPropagation(); // the field itself takes no folders
  handFolders(entries);
}, true);
document.addEventListener("paste", (event) => hand(event.clipboardData.files));

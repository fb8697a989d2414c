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

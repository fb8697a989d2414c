// What page.js draws with: pixels in, pictures and paths out. Nothing here knows the page.
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function load(address) {
  return new Promise((done, fail) => {
    const image = new Image();
    image.onload = () => done(image);
    image.onerror = fail;
    image.src = address;
  });
}

// the border of grid ≥ level between the pixels (marching squares); outside the picture is 0
const SIDES = [[], [3, 0], [0, 1], [3, 1], [1, 2], [3, 0, 1, 2], [0, 2], [3, 2], [2, 3], [0, 2], [0, 1, 2, 3], [1, 2], [1, 3], [0, 1], [0, 3], []];
function outline(grid, width, height, level, drawn = () => true) {
  const path = new Path2D();
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : grid[y * width + x]);
  for (let y = -1; y < height; y++) {
    for (let x = -1; x < width; x++) {
      if (!drawn(x, y)) continue;
      const [a, b, c, d] = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
      const sides = SIDES[(a >= level) | ((b >= level) << 1) | ((c >= level) << 2) | ((d >= level) << 3)];
      for (let k = 0; k < sides.length; k++) {
        const [px, py] = [[x + (level - a) / (b - a), y], [x + 1, y + (level - b) / (c - b)],
                          [x + (level - d) / (c - d), y + 1], [x, y + (level - a) / (d - a)]][sides[k]];
        if (k % 2) path.lineTo(px + 0.5, py + 0.5);
        else path.moveTo(px + 0.5, py + 0.5);
      }
    }
  }
  return path;
}

// which cells of a grid a dashed border is drawn in: three of five along every direction
function dashes(width) {
  const size = Math.max(1, Math.round(width / 128));
  return (x, y) => (Math.floor((x + size) / size) + 2 * Math.floor((y + size) / size)) % 5 < 3;
}

function colours(anchors) {
  const parts = anchors.map((text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16)));
  return Array.from({ length: 256 }, (_, i) => {
    const place = (i / 255) * (parts.length - 1);
    const low = Math.min(Math.floor(place), parts.length - 2);
    return parts[low].map((value, k) => value + (parts[low + 1][k] - value) * (place - low));
  });
}

function heat(values, width, height, lut, top) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  values.forEach((value, i) => {
    const [r, g, b] = lut[Math.max(0, Math.min(255, Math.round((value / top) * 255)))];
    image.data.set([r, g, b, 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

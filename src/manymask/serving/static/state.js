// What the viewer holds of a scene (see view_model.py). The server sends the masks; confidence, disagreement and the
// consensus at any threshold are worked out here, so that the page answers at once.
const find = (selector) => element.querySelector(selector);
const BLANK = { scene: null, picture: null, grids: [], paths: [], mean: null, border: null, confidence: null, disagreement: null,
                promised: [], marks: [], waiting: 0, ended: false };
const view = { ...BLANK, hidden: new Set(), leftOut: new Set(), strokes: [], corrected: null, at: 0.5, stamp: 0, turn: 0, changes: 0 };
const CONFIDENCE = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const DISAGREEMENT = ["#000004", "#1b0c41", "#4a0c6b", "#781c6d", "#a52c60", "#cf4446", "#ed6925", "#fb9b06", "#f7d13d", "#fcffa4"];
const LUTS = { confidence: colours(CONFIDENCE), disagreement: colours(DISAGREEMENT) };
find(".mm-confidence .mm-scale i").style.background = "linear-gradient(90deg," + CONFIDENCE.join(",") + ")";
find(".mm-disagreement .mm-scale i").style.background = "linear-gradient(90deg," + DISAGREEMENT.join(",") + ")";

const colour = (k) => view.scene.palette[k];
const counted = () => view.grids.filter((_, k) => !view.leftOut.has(k));

// confidence and disagreement, in [0, 255], from the masks that count so far
function fuse() {
  const grids = counted();
  if (!grids.length) return;
  const [width, height] = view.scene.grid;
  const mean = new Float32Array(width * height);
  const spread = new Float32Array(width * height);
  for (let i = 0; i < mean.length; i++) {
    let [sum, squares] = [0, 0];
    for (const grid of grids) {
      sum += grid[i];
      squares += grid[i] * grid[i];
    }
    mean[i] = sum / grids.length;
    spread[i] = Math.sqrt(Math.max(0, squares / grids.length - mean[i] * mean[i]));
  }
  view.mean = mean;
  view.confidence = heat(mean, width, height, LUTS.confidence, 255);
  view.disagreement = heat(spread, width, height, LUTS.disagreement, 127.5);
}

// the border of the consensus, and of what the brush made of it
function cut() {
  if (!view.mean) return;
  view.border = outline(view.mean, ...view.scene.grid, view.at * 255);
  view.corrected = null;
  const strokes = tool.stroke ? [...view.strokes, tool.stroke] : view.strokes; // one may be in progress
  if (!strokes.length) return;
  view.corrected = view.mean.slice();
  for (const each of strokes) brush(view.corrected, each);
  view.correctedBorder = outline(view.corrected, ...view.scene.grid, view.at * 255);
}

// pixels of the image, from those of the grid: an estimate
const held = (grid) => grid.reduce((sum, value) => sum + (value / 255 >= view.at), 0) * (view.scene.width / view.scene.grid[0]) * (view.scene.height / view.scene.grid[1]);

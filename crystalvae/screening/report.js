"use strict";

function rotation(axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle);
  return axis === "x"
    ? [[1, 0, 0], [0, c, -s], [0, s, c]]
    : [[c, 0, s], [0, 1, 0], [-s, 0, c]];
}

function times(a, b) {
  return a.map(row => [0, 1, 2].map(j =>
    row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j]));
}

function apply(m, v) {
  return m.map(row => row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
}

function parse(color) {
  return [1, 3, 5].map(i => parseInt(color.slice(i, i + 2), 16));
}

/** Towards white by the shares given, or towards black by negative ones. */
function mix(color, ...shares) {
  return "rgb(" + shares.reduce((parts, share) =>
    parts.map(v => v + ((share < 0 ? 0 : 255) - v) * Math.abs(share)),
    color).map(Math.round).join(",") + ")";
}

/** A crystal on a two-dimensional canvas, painted from back to front. */
class Crystal {
  constructor(canvas, scene) {
    this.canvas = canvas;
    this.scene = scene;
    const up = [[1, 0, 0], [0, 0, 1], [0, -1, 0]];
    this.start = times(rotation("x", 0.3), times(rotation("y", -0.5), up));
    this.corners = [];
    for (let i = 0; i < 8; i++) {
      const f = [i & 1, (i >> 1) & 1, (i >> 2) & 1].map(v => v - 0.5);
      this.corners.push([0, 1, 2].map(k =>
        f[0] * scene.cell[0][k] + f[1] * scene.cell[1][k] + f[2] * scene.cell[2][k]));
    }
    this.colors = scene.elements.map(e => parse(e.color));
    const largest = Math.max(...scene.elements.map(e => e.radius));
    this.size = largest + Math.max(...this.corners.map(v => Math.hypot(...v)));
    this.reset();
    canvas.addEventListener("pointerdown", e => {
      this.last = [e.clientX, e.clientY];
      canvas.setPointerCapture(e.pointerId);
    });
    canvas.addEventListener("pointermove", e => {
      if (!this.last || !e.buttons) return;
      const dx = e.clientX - this.last[0], dy = e.clientY - this.last[1];
      this.last = [e.clientX, e.clientY];
      this.turn(dx * 0.01, dy * 0.01);
    });
    canvas.addEventListener("keydown", e => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
        ArrowDown: [0, 1]}[e.key];
      if (!step) return;
      e.preventDefault();
      this.turn(step[0] * 0.15, step[1] * 0.15);
    });
    canvas.addEventListener("wheel", e => {
      if (!e.ctrlKey && document.fullscreenElement !== canvas) return;
      e.preventDefault();
      this.zoom = Math.min(8, Math.max(0.3, this.zoom * Math.exp(-e.deltaY / 400)));
      this.draw();
    }, {passive: false});
    canvas.addEventListener("dblclick", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else canvas.requestFullscreen();
    });
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  reset() {
    this.view = this.start;
    this.zoom = 1;
    this.draw();
  }

  turn(dx, dy) {
    this.view = times(rotation("x", dy), times(rotation("y", dx), this.view));
    this.draw();
  }

  draw() {
    const ratio = window.devicePixelRatio || 1;
    const box = this.canvas.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.canvas.width = Math.round(box.width * ratio);
    this.canvas.height = Math.round(box.height * ratio);
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.lineCap = "round";
    const far = 5 * this.size;
    const place = v => {
      const [x, y, z] = apply(this.view, v);
      const s = far / (far - z);
      return {x: x * s, y: -y * s, z, s};
    };
    const corners = this.corners.map(place);
    const points = this.scene.points.map(place);
    const radii = this.scene.kinds.map(k => this.scene.elements[k].radius);
    let wide = 0, high = 0;
    corners.forEach(p => {
      wide = Math.max(wide, Math.abs(p.x) + 0.5);
      high = Math.max(high, Math.abs(p.y) + 0.5);
    });
    points.forEach((p, i) => {
      wide = Math.max(wide, Math.abs(p.x) + radii[i] * p.s);
      high = Math.max(high, Math.abs(p.y) + radii[i] * p.s);
    });
    const fit = Math.min(box.width / wide, box.height / high) / 2 * 0.97 * this.zoom;
    pen.translate(box.width / 2, box.height / 2);
    const fade = z => Math.max(0, 0.42 * (0.5 - z / (2 * this.size)));
    const items = [];
    const line = (p, q, z, width, color) => items.push([z, () => {
      pen.strokeStyle = color;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(p.x * fit, p.y * fit);
      pen.lineTo(q.x * fit, q.y * fit);
      pen.stroke();
    }]);
    const between = (p, q, t) => ({x: p.x + (q.x - p.x) * t, y: p.y + (q.y - p.y) * t,
      z: p.z + (q.z - p.z) * t});
    this.edges(corners, line, between);
    for (const [i, j] of this.scene.bonds) {
      const p = points[i], q = points[j], middle = between(p, q, 0.5);
      for (const [end, kind] of [[p, this.scene.kinds[i]], [q, this.scene.kinds[j]]]) {
        const z = (end.z + middle.z) / 2;
        const color = this.colors[kind];
        line(end, middle, z - 0.02, 0.2 * fit, mix(color, -0.35, fade(z)));
        line(end, middle, z - 0.01, 0.13 * fit, mix(color, fade(z)));
      }
    }
    points.forEach((p, i) => items.push([p.z, () => {
      const r = radii[i] * p.s * fit, x = p.x * fit, y = p.y * fit;
      const color = this.colors[this.scene.kinds[i]];
      const light = pen.createRadialGradient(x - r / 3, y - r / 3, r / 8, x, y, r);
      light.addColorStop(0, mix(color, 0.65, fade(p.z)));
      light.addColorStop(0.5, mix(color, fade(p.z)));
      light.addColorStop(1, mix(color, -0.4, fade(p.z)));
      pen.fillStyle = light;
      pen.beginPath();
      pen.arc(x, y, r, 0, 2 * Math.PI);
      pen.fill();
    }]));
    items.sort((a, b) => a[0] - b[0]).forEach(item => item[1]());
    this.labels(pen, corners, fit);
  }

  edges(corners, line, between) {
    const colors = ["#c0392b", "#2e8b57", "#2457c5"], pieces = 6;
    for (let i = 0; i < 8; i++) {
      for (let axis = 0; axis < 3; axis++) {
        const j = i | (1 << axis);
        if (j === i) continue;
        const color = i === 0 ? colors[axis] : "#9aa3ad";
        for (let k = 0; k < pieces; k++) {
          const p = between(corners[i], corners[j], k / pieces);
          const q = between(corners[i], corners[j], (k + 1) / pieces);
          line(p, q, (p.z + q.z) / 2, i === 0 ? 2 : 1.2, color);
        }
      }
    }
  }

  labels(pen, corners, fit) {
    pen.font = "italic 14px Georgia, serif";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    [[1, "a", "#c0392b"], [2, "b", "#2e8b57"], [4, "c", "#2457c5"]].forEach(
      ([corner, name, color]) => {
        const p = corners[0], q = corners[corner];
        const x = (p.x + 0.5 * (q.x - p.x)) * fit, y = (p.y + 0.5 * (q.y - p.y)) * fit;
        const out = Math.hypot(x, y) || 1;
        pen.lineWidth = 4;
        pen.strokeStyle = "#fffc";
        pen.strokeText(name, x + 10 * x / out, y + 10 * y / out);
        pen.fillStyle = color;
        pen.fillText(name, x + 10 * x / out, y + 10 * y / out);
      });
  }
}

function sortable(table) {
  const body = table.tBodies[0];
  table.querySelectorAll("th[data-sort]").forEach((head, column) => {
    head.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th").forEach(h => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = row => {
        const text = row.cells[column].dataset.value ?? row.cells[column].textContent;
        const number = parseFloat(text);
        return head.dataset.sort === "n" ? (isNaN(number) ? Infinity : number) : text;
      };
      const sign = down ? -1 : 1;
      [...body.rows].sort((p, q) => {
        const a = value(p), b = value(q);
        if (a === Infinity || b === Infinity) return (a === b) ? 0 : (a < b ? -1 : 1);
        return sign * (head.dataset.sort === "n" ? a - b : a.localeCompare(b));
      }).forEach(row => body.append(row));
    });
  });
}

function filter(input, table) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
}

const scenes = JSON.parse(document.getElementById("scenes").textContent);
document.querySelectorAll("canvas[data-scene]").forEach(canvas =>
  new Crystal(canvas, scenes[canvas.dataset.scene]));
const ranking = document.getElementById("ranking");
if (ranking) {
  sortable(ranking);
  filter(document.getElementById("search"), ranking);
}

// Our own line icons, 24x24, stroke only. fillIcons() draws every <svg data-icon>.

const SHAPES = {
  "alert": "M12 4 2.8 19.5h18.4L12 4ZM12 10v4.5M12 17.2v.1",
  "info": "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 11v5.5M12 7.6v.1",
  "check": "M4.5 12.5 10 18 19.5 7",
  "bell": "M6 16.5V11a6 6 0 1 1 12 0v5.5l1.5 1.5h-15L6 16.5ZM10 20.5a2.2 2.2 0 0 0 4 0",
  "phone": "M6.2 3.5h3l1.6 4.4-2 1.6a12 12 0 0 0 5.7 5.7l1.6-2 4.4 1.6v3a2 2 0 0 1-2.2 2A17 17 0 0 1 4.2 5.7a2 2 0 0 1 2-2.2Z",
  "phone-down": "M3.2 15.6c-1-2 .1-4 2.2-5.1a15 15 0 0 1 13.2 0c2.1 1.1 3.2 3.1 2.2 5.1l-.5 1-4.6-.8-.6-3a12 12 0 0 0-5.8 0l-.6 3-4.6.8-.9-1Z",
  "phone-in": "M6.2 3.5h3l1.6 4.4-2 1.6a12 12 0 0 0 5.7 5.7l1.6-2 4.4 1.6v3a2 2 0 0 1-2.2 2A17 17 0 0 1 4.2 5.7a2 2 0 0 1 2-2.2ZM20 4l-5.5 5.5M14.5 5v4.5H19",
  "phone-out": "M6.2 3.5h3l1.6 4.4-2 1.6a12 12 0 0 0 5.7 5.7l1.6-2 4.4 1.6v3a2 2 0 0 1-2.2 2A17 17 0 0 1 4.2 5.7a2 2 0 0 1 2-2.2ZM14.5 9.5 20 4M15.5 4H20v4.5",
  "mic": "M12 15a3.2 3.2 0 0 0 3.2-3.2V6.7a3.2 3.2 0 0 0-6.4 0v5.1A3.2 3.2 0 0 0 12 15ZM5.8 11.5a6.2 6.2 0 0 0 12.4 0M12 17.7V21",
  "mic-off": "M15.2 10.8V6.7a3.2 3.2 0 0 0-6.3-.8M8.8 9.5v2.3a3.2 3.2 0 0 0 5 2.7M5.8 11.5a6.2 6.2 0 0 0 10 4.9M18.2 11.5a6 6 0 0 1-.5 2.4M12 17.7V21M4 3.5l16 17",
  "video": "M3.5 7.5a2 2 0 0 1 2-2h8a2 2 0 0 1 2 2v9a2 2 0 0 1-2 2h-8a2 2 0 0 1-2-2v-9ZM15.5 10.5l5-3v9l-5-3",
  "video-off": "M8.5 5.5h5a2 2 0 0 1 2 2v5M15.5 16.5a2 2 0 0 1-2 2h-8a2 2 0 0 1-2-2v-9a2 2 0 0 1 1-1.7M15.5 10.5l5-3v9l-3.5-2.1M3 3l18 18",
  "pause": "M8.5 5.5v13M15.5 5.5v13",
  "play": "M8 5.5v13l10.5-6.5L8 5.5Z",
  "speaker": "M4 9.5v5h3.5l5 4v-13l-5 4H4ZM16 9a4.2 4.2 0 0 1 0 6M18.7 6.3a8 8 0 0 1 0 11.4",
  "speaker-off": "M4 9.5v5h3.5l5 4v-13l-5 4H4ZM16.5 9.5l5 5M21.5 9.5l-5 5",
  "door": "M5 21V4.5a1 1 0 0 1 1-1h9a1 1 0 0 1 1 1V21M3 21h18M12.8 12.2v.1",
  "door-open": "M4 21V4.5a1 1 0 0 1 1-1h10a1 1 0 0 1 1 1V6M3 21h6M9 6.5l8.5-2.3a.8.8 0 0 1 1 .8V20a.8.8 0 0 1-1 .8L9 21V6.5ZM12.5 13v.1",
  "headset": "M4.5 14v-2a7.5 7.5 0 0 1 15 0v2M4.5 14.5a1.5 1.5 0 0 1 1.5-1.5h1.5v6H6a1.5 1.5 0 0 1-1.5-1.5v-3ZM19.5 14.5A1.5 1.5 0 0 0 18 13h-1.5v6H18a1.5 1.5 0 0 0 1.5-1.5v-3ZM18 19c0 1.5-2 2.3-4.5 2.3",
  "person": "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4.5 20.5a7.5 7.5 0 0 1 15 0",
  "moon": "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5Z",
};

/** Draw one icon into an <svg class="icon">. */
export function setIcon(svg, name) {
  if (svg.dataset.drawn === name) return;
  svg.dataset.drawn = name;
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", SHAPES[name]);
  svg.replaceChildren(path);
}

/** A new icon element. */
export function icon(name, tone = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  if (tone) svg.dataset.tone = tone;
  setIcon(svg, name);
  return svg;
}

export function fillIcons(root = document) {
  for (const svg of root.querySelectorAll("svg[data-icon]")) setIcon(svg, svg.dataset.icon);
}

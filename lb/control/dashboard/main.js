// The overview: loads the status every two seconds and shows it.

import { call } from "./api.js";
import { connected } from "./shell.js";

async function look() {
  try {
    const status = await call("/api/v1/status");
    connected(true);
    document.getElementById("main").textContent = `lb ${status.version}`;
  } catch (error) {
    connected(false, error.message);
  }
}

setInterval(look, 2000);
look();

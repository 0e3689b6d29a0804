
(() => {
  const { key } = document.body.dataset;
  let { number, generation } = document.body.dataset;
  const at = (id) => document.getElementById(id);
  const [state, workers, events, activity] = ['state', 'workers', 'events', 'activity'].map(at);
  const most = 300;
  let paused = false;
  let waiting = '';
  let wait = 500;

  const ago = (then) => {
    const seconds = Math.max(0, Math.round((Date.now() - then) / 1000));
    for (const [size, unit] of [[86400, 'd'], [3600, 'h'], [60, 'min']]) {
      if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
    }
    return seconds < 10 ? 'just now' : `${seconds} s ago`;
  };
  const tick = () => {
    for (const time of workers.querySelectorAll('time')) {
      const then = Date.parse(time.dateTime);
      if (Number.isNaN(then)) continue;
      time.textContent = ago(then);
      time.title = new Date(then).toLocaleString();
    }
  };
  // Times of day as they are here, not in UTC.
  const local = (root) => {
    for (const time of root.querySelectorAll('time[data-at]')) {
      const date = new Date(Number(time.dataset.at));
      time.textContent = date.toLocaleTimeString([], { hour12: false });
      time.title = date.toLocaleString();
    }
  };
  const show = (html) => {
    if (!html) return;
    const top = events.scrollTop;
    const height = events.scrollHeight;
    const template = document.createElement('template');
    template.innerHTML = html;
    for (const event of template.content.children) event.classList.add('new');
    local(template.content);
    events.prepend(template.content);
    while (events.childElementCount > most) events.lastElementChild.remove();
    // What is being read stays where it is.
    if (top > 0) events.scrollTop = top + events.scrollHeight - height;
  };
  let shown = '';
  const list = (html) => {
    if (html === shown) return;
    shown = html;
    const focused = workers.contains(document.activeElement) ? document.activeElement.dataset.worker : undefined;
    workers.innerHTML = html;
    for (const button of workers.querySelectorAll('.check')) {
      button.hidden = false;
      if (focused !== undefined && button.dataset.worker === focused) button.focus();
    }
    tick();
  };
  const headers = { 'x-local-page': key };
  const follow = async () => {
    for (;;) {
      try {
        const query = new URLSearchParams(location.search);
        query.set('after', number);
        query.set('generation', generation);
        const response = await fetch(`/__local/page/live?${query}`, { headers, cache: 'no-store' });
        // Another run of the emulator, which knows another page.
        if (response.status === 401 || response.status === 403) return location.reload();
        if (!response.ok) throw new Error(String(response.status));
        const news = await response.json();
        ({ number, generation } = news);
        list(news.workers);
        if (paused) waiting = news.events + waiting;
        else show(news.events);
        state.className = 'live';
        state.textContent = paused ? 'paused' : 'live';
        wait = 500;
      } catch {
        state.className = 'lost';
        state.textContent = 'the emulator is not running';
        await new Promise((done) => setTimeout(done, wait));
        wait = Math.min(wait * 2, 5000);
      }
    }
  };

  workers.addEventListener('click', async ({ target }) => {
    const button = target.closest('.check');
    if (!button) return;
    button.disabled = true;
    try {
      await fetch('/__local/page/check', { method: 'POST', headers, body: button.dataset.worker });
    } catch {
      // The state says so.
    }
    button.disabled = false;
  });
  at('errors').addEventListener('change', ({ target }) => activity.classList.toggle('errors-only', target.checked));
  at('clear').addEventListener('click', () => { events.replaceChildren(); waiting = ''; });
  at('pause').addEventListener('click', ({ target }) => {
    paused = !paused;
    target.setAttribute('aria-pressed', String(paused));
    state.textContent = paused ? 'paused' : 'live';
    if (!paused) { show(waiting); waiting = ''; }
  });

  document.querySelector('.tools').hidden = false;
  for (const button of workers.querySelectorAll('.check')) button.hidden = false;
  state.className = 'live';
  state.textContent = 'live';
  local(events);
  tick();
  setInterval(tick, 5000);
  follow();
})();

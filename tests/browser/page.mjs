// Opens the index page of a local emulator in a real browser: node page.mjs ORIGIN. The workers `acme` and `evil` are deployed there.
// Prints one JSON object with what it saw.

import http from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const require = createRequire(`${process.cwd()}/`);
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const { default: { chromium } } = await load('playwright-core');
const { default: packed } = await load('@sparticuz/chromium');

const origin = process.argv[2];
const { port } = new URL(origin);
const visit = (worker, path) =>
  new Promise((done, failed) => {
    const request = http.get({ host: '127.0.0.1', port, path, headers: { host: `${worker}.localhost:${port}` } }, (answer) => {
      answer.resume();
      answer.on('end', done);
    });
    request.on('error', failed);
  });

const browser = await chromium.launch({
  executablePath: await packed.executablePath(),
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-zygote'],
});
const seen = { complaints: [], elsewhere: [], overflow: [], background: [] };
try {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [1200, 390]) {
      const page = await browser.newPage({ colorScheme, viewport: { width, height: 800 } });
      page.on('pageerror', (error) => seen.complaints.push(error.message));
      page.on('console', (message) => seen.complaints.push(message.text()));
      page.on('request', (request) => new URL(request.url()).origin === origin || seen.elsewhere.push(request.url()));
      await page.goto(origin);
      await page.waitForSelector('#state.live');
      const path = `/live-${colorScheme}-${width}`;
      await visit('acme', path);
      await page.waitForSelector(`#events .event:has-text("${path}")`, { timeout: 20_000 });
      seen.overflow.push(await page.evaluate(() => document.documentElement.scrollWidth - innerWidth));
      seen.background.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
      if (width === 1200 && colorScheme === 'light') {
        // What a worker prints is text.
        seen.image = await page.locator('#events img').count();
        seen.printed = await page.locator(`#events .event:has-text("${path}") pre`).first().textContent();
        const worker = page.locator('li.worker', { hasText: 'acme' });
        seen.before = await worker.locator('.health').textContent();
        await worker.locator('.check').click();
        await page.waitForFunction(() => document.querySelector('#workers').textContent.includes('healthy'), null, { timeout: 20_000 });
        await page.click('#pause');
        await visit('acme', '/while-paused');
        await new Promise((done) => setTimeout(done, 1500));
        seen.paused = await page.locator('#events').textContent().then((text) => text.includes('/while-paused'));
        await page.click('#pause');
        seen.resumed = await page.locator('#events').textContent().then((text) => text.includes('/while-paused'));
        await visit('acme', '/throw');
        await page.waitForSelector('#events .event.error');
        await page.check('#errors');
        seen.errors = await page.locator('#events .event:visible').count();
      }
      await page.close();
    }
  }
  // A worker's page under the emulator's own name can't read this one.
  const evil = await browser.newPage();
  await evil.goto(`${origin}/workers/evil/`);
  await evil.waitForFunction(() => document.title !== '', null, { timeout: 20_000 });
  seen.evil = JSON.parse(await evil.title());
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));

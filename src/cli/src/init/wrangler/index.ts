interface Env {
  GREETING: string;
  ENVIRONMENT: string;
  FLOTILLA_DIGEST: string;
}

export default {
  fetch(request: Request, env: Env): Response {
    const { pathname } = new URL(request.url);
    if (pathname === "/health") return Response.json({ digest: env.FLOTILLA_DIGEST });
    if (pathname !== "/") return new Response("not found\n", { status: 404 });
    return new Response(`${env.GREETING} (${env.ENVIRONMENT})\n`);
  },
};

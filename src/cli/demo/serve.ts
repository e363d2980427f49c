/** A server on a port of this machine, whose listener may come later than its address. */
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Listening {
  /** `http://127.0.0.1:<port>`, with a port that was free. */
  origin: string;
  /** Answers from now on. */
  answerWith(listener: RequestListener): void;
  close(): Promise<void>;
}

/** Takes a free port on this machine only. What is asked before there is somebody to answer gets a 503. */
export async function listen(): Promise<Listening> {
  let current: RequestListener = (_request, response) => void response.writeHead(503).end();
  const server: Server = createServer((request, response) => current(request, response));
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    answerWith: (listener) => {
      current = listener;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

import { createServer, type RequestListener } from "node:http";
import type { AddressInfo } from "node:net";

/** Call `act` with the address of a server, and close it. */
export async function served(listener: RequestListener, act: (address: string) => Promise<void>): Promise<void> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await act(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

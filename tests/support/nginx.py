"""A real nginx on free ports: plain, TLS with HTTP/2, TLS with HTTP/1.1 only."""

import socket
import subprocess
import time
from pathlib import Path

import trustme

from support.ports import free_port

CONFIG = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; default_type application/json;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  gzip on; gzip_types application/json; gzip_min_length 20;
  server {{ listen 127.0.0.1:{plain} backlog=2048; {locations} }}
  server {{ listen 127.0.0.1:{http2} ssl http2; {locations} }}
  server {{ listen 127.0.0.1:{http1} ssl; {locations} }}
  server {{ listen 127.0.0.1:{clients} ssl; ssl_client_certificate {folder}/ca.pem;
            ssl_verify_client on; {locations} }}
  server {{ listen 127.0.0.1:{h2c} http2; {locations} }}
}}
"""
LOCATIONS = """
  location / { return 200 '{"path":"$request_uri","version":"$server_protocol","connection":$connection}'; }
  location /away { return 302 /here; }
  location /text { root {folder}; }
  location /status/404 { return 404; }
"""


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    """Until something listens there; fail if the process has ended."""
    for _ in range(3000):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args} did not start") from None
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.args} did not listen in time")


class Nginx:
    def __init__(self, folder: Path, ca: trustme.CA) -> None:
        self.folder = folder
        names = ("plain", "http2", "http1", "clients", "h2c")
        self.ports = {name: free_port() for name in names}
        cert = ca.issue_cert("localhost", "127.0.0.1")
        (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
        cert.private_key_pem.write_to_path(str(folder / "key.pem"))
        ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        (folder / "text").mkdir()
        (folder / "text" / "long.txt").write_text("many words " * 10_000)
        folder.chmod(0o755)
        locations = LOCATIONS.replace("{folder}", str(folder))
        config = CONFIG.format(folder=folder, locations=locations, **self.ports)
        (folder / "nginx.conf").write_text("user root;\n" + config)

    def start(self) -> None:
        self._process = subprocess.Popen(
            ["nginx", "-c", str(self.folder / "nginx.conf"), "-p", str(self.folder)],
            stderr=subprocess.PIPE,
        )
        for port in self.ports.values():
            wait_for_port(port, self._process)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._process.stderr.close()

    def url(self, name: str, path: str = "/") -> str:
        scheme = "http" if name in ("plain", "h2c") else "https"
        return f"{scheme}://127.0.0.1:{self.ports[name]}{path}"

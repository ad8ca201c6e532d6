"""A bucket on this machine: the emulator of Google's storage, with the conditions of puts, and faults on demand."""

import contextlib
import functools
import io
import json
import socket
import threading
import time
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

BUCKET = 'bucket'


class Server:
    """Serves the bucket `bucket` at `address`.

    Attributes:
        requests: (method, name of the object, or the path) of every request.
        fault: function of (method, path), and again of (method, name of the object) once the body is read, that returns
            None, a status, or, of a path, 'drop' to close the connection half-way.
    """

    def __init__(self):
        pytest.importorskip('gcp_storage_emulator', reason='needs the optional package gcp-storage-emulator')
        pytest.importorskip('google.cloud.storage', reason='needs the optional packages of [cloud]')
        from gcp_storage_emulator import server
        from gcp_storage_emulator.handlers import buckets
        from gcp_storage_emulator.storage import Storage

        self.requests, self.fault = [], lambda method, path: None
        self.storage = Storage(use_memory_fs=True)
        buckets.create_bucket(BUCKET, self.storage)
        outer, lock = self, threading.Lock()

        class Handler(server.RequestHandler):
            def handled(self, do):
                fault = outer.fault(self.command, self.path)
                if fault == 'drop':
                    self.rfile.read(min(10, int(self.headers.get('Content-Length') or 0)))
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
                self.rfile, name = io.BytesIO(body), self.object_name(body)
                outer.requests.append((self.command, name or self.path))
                if fault is None and name:
                    fault = outer.fault(self.command, name)
                if fault is None:
                    fault = self.condition(name)
                if fault is not None:
                    text = json.dumps({'error': {'code': fault, 'message': f'fault {fault}'}}).encode()
                    self.send_response(fault)
                    self.send_header('Content-Length', str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                    return
                with lock:
                    do()

            def object_name(self, body):
                """The name of the object in a request, which a put of several parts has in its body."""
                query = parse_qs(urlsplit(self.path).query)
                if 'name' in query:
                    return query['name'][0]
                if query.get('uploadType') == ['multipart']:
                    return json.loads(b'{' + body.partition(b'{')[2].partition(b'}')[0] + b'}')['name']
                return unquote(self.path.partition('?')[0].partition('/o/')[2])

            def condition(self, name):
                wanted = parse_qs(urlsplit(self.path).query).get('ifGenerationMatch')
                found = outer.object(name)
                return 412 if wanted and int(wanted[0]) != int(found['generation'] if found else 0) else None

            def do_GET(self):
                self.handled(super().do_GET)

            def do_POST(self):
                self.handled(super().do_POST)

            def do_PUT(self):
                self.handled(super().do_PUT)

            def do_DELETE(self):
                self.handled(super().do_DELETE)

            def finish(self):
                with contextlib.suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, *arguments):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *arguments):  # a client that was killed
                pass

        self._http = Quiet(('127.0.0.1', 0), functools.partial(Handler, self.storage))
        self.address = f'http://127.0.0.1:{self._http.server_address[1]}'
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self):
        self._http.shutdown()
        self._http.server_close()

    def object(self, name):
        """The description of an object, None where there is none."""
        return self.storage.objects.get(BUCKET, {}).get(name)

    def names(self):
        return sorted(self.storage.objects.get(BUCKET, {}))

    def read(self, name):
        return self.storage.get_file(BUCKET, name)

    def put(self, name, content):
        import requests

        url = f'{self.address}/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}'
        requests.post(url, data=content, timeout=10).raise_for_status()


def failing_for(seconds, status=503):
    """A fault: every request of the next seconds gets this status."""
    end = time.monotonic() + seconds
    return lambda method, path: status if time.monotonic() < end else None

"""A headless Chromium, spoken to through two pipes in the protocol of its developer tools."""

import base64
import json
import shutil
import subprocess

import pytest

NAMES = ('chromium', 'chromium-browser', 'google-chrome')
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason='no Chromium is installed')
OPTIONS = (
    '--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync '
    '--disable-background-networking --disable-component-update --remote-debugging-pipe'
).split()


class Browser:
    """One page. `events` holds all that the browser has told of it."""

    def __init__(self, folder):
        """folder  a new one, for the files of the browser"""
        command = ['sh', '-c', 'exec "$@" 3<&0 4>&1', '', CHROMIUM, *OPTIONS]  # 3: in, 4: out
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process = subprocess.Popen([*command, f'--user-data-dir={folder}'], **pipes)
        self.events, self.n_sent, self.unread, self.session = [], 0, b'', {}
        target = self('Target.createTarget', url='about:blank')['targetId']
        found = self('Target.attachToTarget', targetId=target, flatten=True)
        self.session = {'sessionId': found['sessionId']}
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self(f'{domain}.enable')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.communicate(timeout=60)  # closes the pipe, at whose end Chromium ends

    def __call__(self, method, **parameters):
        """Send a command. Returns its result."""
        self.n_sent += 1
        message = {'id': self.n_sent, 'method': method, 'params': parameters, **self.session}
        self.process.stdin.write(json.dumps(message).encode() + b'\0')
        self.process.stdin.flush()
        while (answer := self.receive()).get('id') != self.n_sent:
            pass
        return answer['result']

    def receive(self):
        while b'\0' not in self.unread:
            self.unread += self.process.stdout.read1() or b'{"error": "Chromium has ended"}\0'
        message, _, self.unread = self.unread.partition(b'\0')
        message = json.loads(message)
        assert 'error' not in message, message
        if 'method' in message:
            self.events.append(message)
        return message

    def open(self, path, width=1200, scheme='light'):
        """Open a file as a double click does, and wait until all is loaded."""
        sizes = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width < 500}
        self('Emulation.setDeviceMetricsOverride', **sizes)
        features = [{'name': 'prefers-color-scheme', 'value': scheme}]
        self('Emulation.setEmulatedMedia', features=features)
        self('Page.navigate', url=path.absolute().as_uri())
        while self.receive().get('method') != 'Page.loadEventFired':
            pass

    def value(self, expression):
        """The value of an expression of JavaScript in the page."""
        return self('Runtime.evaluate', expression=expression, returnByValue=True)['result'][
            'value'
        ]

    def screenshot(self, path):
        """Keep a picture of the whole page, for a person."""
        found = self('Page.captureScreenshot', captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found['data']))

"""The page."""

import os
from collections.abc import Sequence
from pathlib import Path

from .answers import ExampleVideo, VideoGrounder, answers_html, error_html, note_html, player_html
from .sessions import PageError, SessionStore

STATIC = Path(__file__).parent / 'static'
NO_VIDEO = '<div class="mmn-placeholder"><span>Upload a video or pick an example.</span></div>'
TITLE = 'When does it happen?'


class GroundingPage:
    """Upload or pick a video, type sentences, see and play the moments.

    Gradio is imported here, after its folder for uploads has been set to that of the store.

    Args:
        grounder (VideoGrounder): The model.
        store (SessionStore): The visitors' videos.
        examples (Sequence[ExampleVideo]): Built-in videos. Defaults to none.

    Attributes:
        blocks (gradio.Blocks): For `launch`, or to be mounted in another application.
    """

    def __init__(
        self, grounder: VideoGrounder, store: SessionStore, examples: Sequence[ExampleVideo] = ()
    ) -> None:
        os.environ['GRADIO_TEMP_DIR'] = str(store.uploads)
        os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # nothing leaves the machine
        self.grounder, self.store = grounder, store
        self.examples = {example.name: example for example in examples}
        self.blocks = self._build()

    def launch(self, host: str = '127.0.0.1', port: int | None = None) -> str:
        """Begin to serve the page, and return its URL.

        Args:
            host (str): Address to listen at. Defaults to this machine alone.
            port (int, optional): Defaults to None: the first that is free from 7860 on.

        Raises:
            OSError: If the port is taken.
        """
        import gradio as gr

        limits = self.store.limits
        served = [self.store.videos, *(example.path for example in self.examples.values())]
        theme = gr.themes.Default(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
        _, url, _ = self.blocks.queue(max_size=4 * limits.visitors).launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            max_file_size=limits.bytes,
            ssr_mode=False,
            pwa=False,
            allowed_paths=list(map(str, served)),
            footer_links=[],
            theme=theme,
            css=(STATIC / 'page.css').read_text(encoding='utf-8'),
            head=f'<script>{(STATIC / "page.js").read_text(encoding="utf-8")}</script>',
        )
        return url

    def take_upload(self, path: str | None, user: str) -> tuple[str, None]:
        """Player for a file that has been uploaded; no example is chosen."""
        if path is None:
            raise PageError('No file has arrived; try again.')
        return player_html(self.store.open_upload(user, path, Path(path).name)), None

    def take_example(self, name: str, user: str) -> tuple[str, str]:
        """Player for an example, and its sentences, one a line."""
        example = self.examples[name]
        session = self.store.open_example(user, example.path, example.name, example.truth)
        return player_html(session), '\n'.join(example.truth)

    def answer(self, text: str, user: str) -> str:
        """Answers to the sentences of a text."""
        session = self.store.get(user)
        sentences = self.store.limits.split_sentences(text)
        return answers_html(session, self.grounder.ask(session, sentences))

    def _build(self):
        import gradio as gr

        with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
            limits = self.store.limits
            gr.Markdown(
                f'# {TITLE}\nChoose a video, say what to look for, and play the moments that fit. '
                f'Up to {limits.megabytes:g} MB and {limits.seconds / 60:g} minutes; what you '
                'upload is deleted when you leave.',
                elem_id='mmn-title',
            )
            with gr.Row():
                with gr.Column(elem_id='mmn-player-column', min_width=320):
                    player = gr.HTML(NO_VIDEO, elem_id='mmn-player')
                with gr.Column(min_width=320):
                    upload = gr.UploadButton(
                        'Upload a video', file_types=['video'], elem_id='mmn-upload'
                    )
                    pick = gr.Radio(
                        list(self.examples),
                        label='or pick an example',
                        elem_id='mmn-example',
                        visible=bool(self.examples),
                    )
                    text = gr.Textbox(
                        label='Sentences, one a line',
                        lines=4,
                        max_lines=10,
                        placeholder='the red circle moves to the left',
                        elem_id='mmn-sentences',
                    )
                    ask = gr.Button('Find the moments', variant='primary', elem_id='mmn-ask')
                    status = gr.HTML('', elem_id='mmn-status')
                    answers = gr.HTML('', elem_id='mmn-answers')
            self._connect(gr, blocks, upload, pick, text, ask, player, status, answers)
        return blocks

    def _handlers(self, gr) -> tuple:
        """What happens when a video is chosen, shown, and asked about."""

        def taking(take):
            def on_choice(chosen, request: gr.Request):
                try:
                    shown, other = take(chosen, request.session_hash)
                except PageError as error:
                    return gr.skip(), error_html(str(error)), gr.skip(), gr.skip()
                return shown, note_html('Reading the video …'), '', other

            return on_choice

        def on_opened(said, request: gr.Request):
            if 'mmn-error' in said:
                return said
            try:
                self.grounder.encode(self.store.get(request.session_hash))
            except PageError as error:
                return error_html(str(error))
            return note_html('Ready. Type sentences and find the moments.')

        def on_ask(sentences, request: gr.Request):
            try:
                return self.answer(sentences, request.session_hash), ''
            except PageError as error:
                return '', error_html(str(error))

        return taking, on_opened, on_ask

    def _connect(self, gr, blocks, upload, pick, text, ask, player, status, answers) -> None:
        def on_leave(request: gr.Request):
            self.store.close(request.session_hash)

        taking, on_opened, on_ask = self._handlers(gr)
        # visitors take turns inside of the grounder; choosing a file never waits for it
        model = dict(
            concurrency_limit=self.store.limits.visitors,
            concurrency_id='model',
            api_visibility='private',
        )
        quick = dict(queue=False, api_visibility='private')
        for event, chosen, take, other in (
            (upload.upload, upload, self.take_upload, pick),
            (pick.input, pick, self.take_example, text),
        ):
            opened = event(taking(take), chosen, [player, status, answers, other], **quick)
            opened.then(on_opened, status, status, **model)
        gr.on([ask.click, text.submit], on_ask, text, [answers, status], **model)
        blocks.unload(on_leave)

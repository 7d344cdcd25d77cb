"""The pages behind links in mails: questions, lists of files and errors, in the look of the page."""

from dataclasses import dataclass
from html import escape
from string import Template

from fastapi import Request
from fastapi.responses import HTMLResponse

from api.errors import Problem
from api.files.routes import FilePage
from api.middleware.response_headers import content_security_policy
from api.page.localized import language_of
from stream_app.jobs.models import ExportJob
from stream_app.messages.catalogue import messages, text
from stream_app.notifications.mail_style import MailStyle
from stream_app.notifications.notification import Recipient
from stream_app.notifications.request_words import schedule_text, user_text

_HEADERS = {
    "Content-Security-Policy": content_security_policy(
        style_src="'self'", img_src="'self'", form_action="'self'"
    ),
    "X-Robots-Tag": "noindex",
}


def wants_html(accept: str) -> bool:
    """Return whether a value of ``Accept`` is that of a browser, so a person reads the answer."""
    return "text/html" in accept


@dataclass(frozen=True, slots=True)
class LinkPages:
    """Writes the pages in the language of one recipient."""

    language: str

    @classmethod
    def of(cls, request: Request, recipient: Recipient | None = None) -> "LinkPages":
        """Return the pages in the language of the mail, or else in that of the browser."""
        known = None if recipient is None else recipient.language
        return cls(known or language_of(request))

    def problem(self, problem: Problem) -> HTMLResponse:
        """Return an error as a page."""
        key = f"link.problems.{problem.code}"
        known = key in messages(self.language)
        detail = self._say(key) if known else f"{problem.detail}."
        title = self._say("link.problem_title")
        return self._page(title, _paragraph(detail), problem.status, problem.headers)

    def question(self, recipient: Recipient) -> HTMLResponse:
        """Return the page that asks whether to stop mails. It says which ones."""
        user = user_text(recipient.user_id, 100) or ""
        if recipient.topic.startswith("schedule:"):
            question = self._schedule_question(recipient)
            note = self._say("link.schedule_note", address=recipient.address)
        else:
            question = self._say("link.user_question", user=user)
            note = self._say("link.user_note", user=user)
        button = f'<p><button class="primary">{escape(self._say("link.stop"))}</button></p>'
        body = _paragraph(question) + _paragraph(note, "hint") + f'<form method="post">{button}</form>'
        return self._page(self._say("link.unsubscribe_title"), body)

    def stopped(self, recipient: Recipient) -> HTMLResponse:
        """Return the page that confirms that mails have stopped."""
        user = user_text(recipient.user_id, 100) or ""
        body = _paragraph(self._say("link.stopped", address=recipient.address))
        body += _paragraph(self._say("link.restart", user=user), "hint")
        return self._page(self._say("link.stopped_title"), body)

    def files(self, page: FilePage, job: ExportJob) -> HTMLResponse:
        """Return the list of files. The first use of a locale takes long."""
        style = MailStyle.of(self.language, job.options, None)
        items = ""
        for file in page.files:
            address, name = escape(file.download_url, quote=True), escape(file.file_name)
            rows = text(self.language, "mail.rows", file.row_count, count=style.number(file.row_count))
            facts = self._say("link.file_facts", size=style.size(file.file_size), rows=rows)
            items += f'<li><a href="{address}">{name}</a> <small>{escape(facts)}</small></li>'
        body = _paragraph(self._say("link.files_about", dataset=job.name or job.export_type))
        body += f'<ol class="files">{items}</ol>'
        if page.next_cursor is not None:
            more = "link.more_files" if job.file_count else "link.many_files"
            body += _paragraph(self._say(more, count=style.number(job.file_count or 0)), "hint")
        return self._page(self._say("link.files_title"), body)

    def _schedule_question(self, recipient: Recipient) -> str:
        summary, dataset = recipient.schedule_summary, recipient.dataset
        shown = summary and schedule_text(summary, self.language, self.language)
        if summary is None or shown is None:
            return self._say("link.deleted_schedule_question", dataset=dataset)
        name = summary.name and user_text(summary.name)
        key = "link.schedule_question" if name else "link.unnamed_schedule_question"
        return self._say(key, name=name, dataset=dataset, rhythm=shown)

    def _say(self, key: str, **values: object) -> str:
        return text(self.language, key, None, **values)

    def _page(
        self, title: str, body: str, status: int = 200, headers: dict[str, str] | None = None
    ) -> HTMLResponse:
        brand = escape(text(self.language, "page.top.title"))
        html = _PAGE.substitute(language=self.language, title=escape(title), brand=brand, body=body)
        return HTMLResponse(html, status_code=status, headers={**(headers or {}), **_HEADERS})


def _paragraph(words: str, look: str = "") -> str:
    return f'<p class="{look}">{escape(words)}</p>' if look else f"<p>{escape(words)}</p>"


_PAGE = Template(
    """\
<!DOCTYPE html>
<html lang="$language">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\
<meta name="color-scheme" content="light dark"><title>$title</title>\
<link rel="icon" href="../../page/icon.svg" type="image/svg+xml">\
<link rel="stylesheet" href="../../page/style.css"></head>
<body>
<header class="top"><p class="brand">\
<img src="../../page/icon.svg" alt="" width="24" height="24">$brand</p></header>
<main><div class="panel link-page"><h1>$title</h1>$body</div></main>
</body>
</html>
"""
)

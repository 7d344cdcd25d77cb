"""The button "Export", the progress of an export, and its file."""

from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from shop.models import Export
from streaming_exporter import ExportClient, ExportRequest
from streaming_exporter.outbox.django import request_export


def client() -> ExportClient:
    """Return a client of the API, to be used in a `with` block."""
    return ExportClient(settings.EXPORTER_URL, settings.EXPORTER_TOKEN)


@require_GET
def index(request: HttpRequest) -> HttpResponse:
    """Show the button and the exports so far."""
    return render(request, "index.html", {"exports": Export.objects.all()[:50]})


@require_POST
def request(request: HttpRequest) -> HttpResponse:
    """Record and request an export in one transaction."""
    with transaction.atomic():
        job_id = request_export(
            ExportRequest(user_id=settings.EXPORTER_USER, export_type="ledger", format="csv"),
            source="/examples/django",
        )
        Export.objects.create(job_id=job_id)
    return redirect("show", job_id)


@require_GET
def show(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Show the progress; the page loads itself again until the job has ended."""
    get_object_or_404(Export, job_id=job_id)
    with client() as exports:
        job = exports.job(job_id)  # None: the relay or the service has not got to it yet
    response = render(request, "export.html", {"job_id": job_id, "job": job})
    if job is None or not job.finished:
        response["Refresh"] = "1"
    return response


@require_GET
def file(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Send the browser to a fresh link of the object store."""
    get_object_or_404(Export, job_id=job_id)
    with client() as exports:
        return redirect(exports.link(job_id))

"""The addresses of the shop."""

from django.urls import path

from shop import views

urlpatterns = [
    path("", views.index, name="index"),
    path("exports/", views.request, name="request"),
    path("exports/<uuid:job_id>/", views.show, name="show"),
    path("exports/<uuid:job_id>/file/", views.file, name="file"),
]

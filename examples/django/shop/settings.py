"""Settings of the shop. They come from the environment."""

import os
from pathlib import Path
from urllib.parse import urlsplit

BASE_DIR = Path(__file__).parent
SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "an example on this machine alone")
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
ROOT_URLCONF = "shop.urls"
INSTALLED_APPS = ["streaming_exporter.outbox.django", "shop"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

_url = urlsplit(os.environ["SHOP_DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _url.hostname,
        "PORT": _url.port,
        "NAME": _url.path.lstrip("/"),
        "USER": _url.username,
        "PASSWORD": _url.password,
    }
}

EXPORTER_URL = os.environ.get("EXPORTER_PUBLIC_URL", "http://127.0.0.1:8000")
EXPORTER_TOKEN = os.environ["EXPORTER_TOKEN"]
EXPORTER_USER = os.environ.get("SHOP_USER", "shop")

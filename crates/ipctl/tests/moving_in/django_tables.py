"""Makes the tables of the Django application and fills them, with Django itself.

Usage: django_tables.py sqlite PATH | postgres URL
"""

import datetime
import sys
from urllib.parse import urlsplit

import django
from django.conf import settings

kind, where = sys.argv[1:]
if kind == "sqlite":
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": where}
else:
    url = urlsplit(where)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": url.username,
        "PASSWORD": url.password or "",
        "HOST": url.hostname,
        "PORT": url.port,
    }
settings.configure(
    DATABASES={"default": database},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    TIME_ZONE="Europe/Stockholm",
    USE_TZ=True,
)
django.setup()

from django.db import connection, models  # noqa: E402


class RequestLog(models.Model):
    ip_address = models.GenericIPAddressField()
    timestamp = models.DateTimeField()
    path = models.CharField(max_length=255)
    country = models.CharField(max_length=100, blank=True, null=True)
    city = models.CharField(max_length=100, blank=True, null=True)

    class Meta:
        app_label = "ip_tracking"


class BlockedIP(models.Model):
    ip_address = models.GenericIPAddressField(unique=True)

    class Meta:
        app_label = "ip_tracking"


class SuspiciousIP(models.Model):
    ip_address = models.GenericIPAddressField()
    reason = models.TextField()
    detected_at = models.DateTimeField()

    class Meta:
        app_label = "ip_tracking"


if "ip_tracking_requestlog" not in connection.introspection.table_names():
    with connection.schema_editor() as editor:
        for model in (RequestLog, BlockedIP, SuspiciousIP):
            editor.create_model(model)
    begin = datetime.datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=datetime.timezone.utc)
    RequestLog.objects.bulk_create(
        RequestLog(
            ip_address="203.0.113.9",
            timestamp=begin + datetime.timedelta(seconds=n),
            path=f"/page/{n}",
            country="SE",
            city="Uppsala",
        )
        for n in range(120)
    )
    RequestLog.objects.create(
        ip_address="2001:db8::7", timestamp=begin, path="/admin/?next=/", country="", city=None
    )
    for address in ("203.0.113.9", "2001:db8::7", "127.0.0.1"):
        BlockedIP.objects.create(ip_address=address)
    for address, reason in (
        ("198.51.100.4", "Exceeded 100 requests/hour"),
        ("198.51.100.4", "Exceeded 100 requests/hour"),
        ("198.51.100.5", "Accessed sensitive path: /admin"),
        ("198.51.100.6", "odd"),
    ):
        SuspiciousIP.objects.create(ip_address=address, reason=reason, detected_at=begin)
else:
    RequestLog.objects.create(
        ip_address="198.51.100.9",
        timestamp=datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc),
        path="/new",
    )
    if kind == "sqlite" and len(RequestLog.objects.all()) > 122:
        RequestLog.objects.first().delete()

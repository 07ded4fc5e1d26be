from django.db import models


class RequestLog(models.Model):
    ip_address = models.GenericIPAddressField()
    timestamp = models.DateTimeField(auto_now_add=True)
    method = models.CharField(max_length=16)
    path = models.CharField(max_length=2048)
    country = models.CharField(max_length=100, blank=True)
    city = models.CharField(max_length=100, blank=True)

    class Meta:
        indexes = [models.Index(fields=["ip_address", "timestamp"])]


class BlockedIP(models.Model):
    ip_address = models.GenericIPAddressField(unique=True)

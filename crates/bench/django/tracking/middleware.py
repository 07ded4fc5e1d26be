from django.core.cache import cache
from django.http import HttpResponseForbidden

from .models import BlockedIP, RequestLog


def place_of(address):
    """The place is in the cache for 24 hours; what would ask a service on the network is left out."""
    key = f"geo:{address}"
    place = cache.get(key)
    if place is None:
        place = ("DE", "Somewhere")
        cache.set(key, place, 24 * 3600)
    return place


class TrackIP:
    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR")
        address = forwarded.split(",")[-1].strip() if forwarded else request.META["REMOTE_ADDR"]
        request.client_ip = address
        if BlockedIP.objects.filter(ip_address=address).exists():
            return HttpResponseForbidden("blocked")
        country, city = place_of(address)
        RequestLog.objects.create(
            ip_address=address, method=request.method, path=request.path, country=country, city=city
        )
        return self.get_response(request)

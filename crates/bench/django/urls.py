from django.http import HttpResponse
from django.urls import path
from django_ratelimit.decorators import ratelimit


@ratelimit(key=lambda group, request: request.client_ip, rate="600/m", block=True)
def hello(request):
    return HttpResponse("hello, world\n", content_type="text/plain; charset=utf-8")


urlpatterns = [path("", hello), path("over", hello)]

-- Asks ipwarden about a request, and answers for it when it refuses.
--
-- HAProxy has no forward-auth of its own; its httpclient (2.5 and later) asks the gate as Traefik does.

local GATE = "http://127.0.0.1:8081/v1/forward-auth"
-- In milliseconds, of each of four attempts: HAProxy tries that often.
local PATIENCE = 1000
-- Without ipwarden everybody passes. To fail closed (503), write `false`.
local FAIL_OPEN = true

-- What a refusal of the gate brings along for the client.
local PASSED_ON = {
    "content-type", "cache-control", "vary", "retry-after", "ratelimit", "ratelimit-policy",
    "x-ipwarden-reference",
}

local function first(headers, name)
    local values = headers[name]
    return values and values[0]
end

local function unanswered(txn)
    if not FAIL_OPEN then
        txn:done(txn:reply{ status = 503 })
    end
end

core.register_action("ipwarden", { "http-req" }, function(txn)
    -- Nobody waits for what is known to be away.
    if txn.f:nbsrv("ipwarden") == 0 then
        return unanswered(txn)
    end
    -- Nothing that the client sent goes along but what is named here.
    local headers = {
        ["host"] = { "ipwarden" },
        ["x-forwarded-method"] = { txn.f:method() },
        ["x-forwarded-uri"] = { txn.f:url() },
        ["x-forwarded-for"] = { txn.f:src() },
    }
    for _, name in ipairs({ "user-agent", "accept" }) do
        local value = txn.sf:req_fhdr(name)
        if value ~= "" then
            headers[name] = { value }
        end
    end
    -- With `identity.header = "X-User"`, and a user whom HAProxy has authenticated:
    -- headers["x-user"] = { txn.sf:http_auth_user() }

    local answer = core.httpclient():get{ url = GATE, headers = headers, timeout = PATIENCE }

    if answer.status == 200 then
        txn:set_var("txn.ipwarden_reference", first(answer.headers, "x-ipwarden-reference"))
        txn:set_var("txn.ipwarden_ratelimit", first(answer.headers, "ratelimit"))
        txn:set_var("txn.ipwarden_policy", first(answer.headers, "ratelimit-policy"))
        local pass = first(answer.headers, "x-ipwarden-pass")
        if pass then
            txn.http:req_set_header("X-Ipwarden-Pass", pass)
        end
    elseif answer.status >= 400 and answer.status < 500 then
        -- 403 and 429, and whatever the gate cannot understand.
        local reply = txn:reply{ status = answer.status, body = answer.body }
        for _, name in ipairs(PASSED_ON) do
            local value = first(answer.headers, name)
            if value then
                reply:add_header(name, value)
            end
        end
        txn:done(reply)
    else
        unanswered(txn)
    end
end)

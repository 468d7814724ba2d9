-- The health of a SecureWebSocketRoute for Argo CD, by the conditions that the gateway writes.
local health = {status = "Progressing", message = "Waiting for the gateway"}
if obj.status == nil or obj.status.conditions == nil then
  return health
end
local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  return health
end
if found.Stalled ~= nil and found.Stalled.status == "True" then
  -- Waiting does not help: somebody has to mend it.
  return {status = "Degraded", message = found.Stalled.message}
end
if found.Ready ~= nil then
  health.message = found.Ready.message
  if found.Ready.status == "True" then
    health.status = "Healthy"
  end
end
return health

-- Every run of an agent that is known, with the commands that stand for the agent's breakers.
SELECT seen_ms, gone, beat, COALESCE(commands, '')
FROM agents LEFT JOIN breaker_commands USING (agent)
ORDER BY agent, seen_ms DESC

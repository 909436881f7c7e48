//! What crosses between the starting half and the agent.

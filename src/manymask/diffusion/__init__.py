"""The mathematics of diffusion and flow matching, independent of any network: processes, samplers, guidance."""

//! SPC-4 and SBC-3 wire forms: CDBs, parameter data, sense, VPD, mode pages, TransportIDs.
